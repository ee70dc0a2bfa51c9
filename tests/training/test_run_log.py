"""What a run shows: means, log.jsonl, the progress line, grids."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from csvae_hub.models.latents import Latents
from csvae_hub.training.run_log import Means, RunLog, attribute_grid


class Painter:
    """Decodes w to the red channel and z to the green one: each picture says what its latents are."""

    attributes = ("A", "B")

    def encode(self, images):
        y = images[:, :2, 0, 0]
        return Latents(images[:, 2:, 0, 0], y[:, :, None], y, self.attributes)

    def decode(self, latents):
        code = torch.cat([latents.w[:, :, 0], latents.z], 1)
        return code[:, :, None, None].expand(-1, 3, 2, 2)

    def edit(self, latents, values):
        for name, value in values.items():
            latents = latents.replace(name, torch.tensor([float(value)]))
        return latents


def test_means_are_taken_over_the_batches_since_the_last_time():
    means = Means()
    for value in (1.0, 3.0):
        means.add({"loss": torch.tensor(value)})
    assert means.take(2) == {"loss": 2.0}
    means.add({"loss": torch.tensor(7.0)})
    assert means.take(3) == {"loss": 7.0}


def test_means_that_are_not_finite_name_the_term_and_the_remedy():
    means = Means()
    means.add({"loss": torch.tensor(1.0), "kl_w": torch.tensor(float("inf"))})
    with pytest.raises(
        FloatingPointError, match=r"kl_w = inf by batch 9: expected finite losses; lower the learning rate"
    ):
        means.take(9)


def test_the_grid_switches_each_attribute_of_each_picture():
    codes = torch.tensor([[0.0, 1.0, 0.3], [1.0, 1.0, 0.6]])
    grid = attribute_grid(Painter(), codes[:, :, None, None].expand(-1, 3, 2, 2))
    shown = grid[:, :, 0, 0].reshape(2, 4, 3)
    assert torch.equal(shown[:, 0], codes)
    assert torch.equal(shown[:, 1], codes)
    assert torch.equal(shown[0, 2:], torch.tensor([[1.0, 1.0, 0.3], [0.0, 0.0, 0.3]]))
    assert torch.equal(shown[1, 2:], torch.tensor([[0.0, 1.0, 0.6], [1.0, 0.0, 0.6]]))


def write(log, first, *batches):
    log.start(first)
    for batch in batches:
        log.write("batch", batch, 1, 8, {"loss": 0.5})
    log.close()


def test_a_resumed_log_loses_what_came_after_the_checkpoint_and_a_line_cut_off(tmp_path):
    write(RunLog(tmp_path, 10, quiet=True), 0, 1, 2, 3, 4)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "batch", "ba')
    write(RunLog(tmp_path, 10, quiet=True), 2, 3, 4, 5)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["batch"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(line["images_per_second"] > 0 and line["loss"] == 0.5 for line in lines)


def test_plain_lines_where_there_is_no_terminal_and_one_line_where_there_is(capsys, monkeypatch):
    write(RunLog(None, 10), 0, 1, 2)
    plain = capsys.readouterr().err
    assert plain.count("\n") == 2
    assert "epoch 1  batch 2/10" in plain
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    write(RunLog(None, 10), 0, 1, 2)
    terminal = capsys.readouterr().err
    assert terminal.count("\r") == 2
    assert "\n" not in terminal


def test_quiet_says_nothing(capsys):
    write(RunLog(None, 10, quiet=True), 0, 1)
    assert capsys.readouterr().err == ""
