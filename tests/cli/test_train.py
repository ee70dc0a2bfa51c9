from __future__ import annotations

import pytest

from csvae_hub.models import CSVAE


def test_train_follows_a_recipe_with_overrides(run, tmp_path):
    overrides = ["--set", "trainer.epochs=1", "--set", "data.examples=200"]
    result = run("train", "--recipe", "swiss-roll", "-o", tmp_path / "run", *overrides)
    assert f"trained: {tmp_path / 'run/model'}" in result.stdout
    assert CSVAE.from_pretrained(tmp_path / "run/model").attributes == ("Above",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "trainer.epochs"], "--set trainer.epochs: expected KEY=VALUE, such as trainer.epochs=3"),
        (["--set", "trainer.epoch=3"], "did you mean 'epochs'?"),
        (["--recipe", "swiss-rol"], "did you mean 'swiss-roll'?"),
    ],
)
def test_train_refuses_unknown_names(run, tmp_path, arguments, message):
    result = run("train", "--recipe", "swiss-roll", "-o", tmp_path / "run", *arguments, code=2)
    assert message in result.stderr
    assert not (tmp_path / "run").exists()
