"""`csvae list` and `csvae info`."""

from __future__ import annotations

import json


def test_list_and_info_name_what_a_model_knows(run, weights, monkeypatch):
    monkeypatch.setattr("csvae_hub.hub.PACKAGED", weights.parent)
    assert run("list").stdout == "tiny  csvae  3×16×16  Eyeglasses, Smiling\n"
    assert json.loads(run("list", "--json").stdout)["tiny"]["attributes"] == ["Eyeglasses", "Smiling"]
    shown = run("info", "tiny").stdout
    assert "attributes  Eyeglasses, Smiling" in shown
    assert "latents     z 4, w 2 × 2" in shown
    assert json.loads(run("info", weights, "--json").stdout)["config"]["z_dim"] == 4
