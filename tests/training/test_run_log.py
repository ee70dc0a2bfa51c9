"""What a run shows: means, log.jsonl, the progress line."""

from __future__ import annotations

import json
import time

import pytest
import torch

from csvae_hub.errors import TrainingError
from csvae_hub.training.run_log import Means, RunLog


def test_means_are_taken_over_the_batches_since_the_last_time():
    means = Means()
    for value in (1.0, 3.0):
        means.add({"loss": torch.tensor(value)})
    assert means.take(2) == {"loss": 2.0}
    means.add({"loss": torch.tensor(7.0)})
    assert means.take(3) == {"loss": 7.0}


def test_a_term_that_some_batches_lack_has_the_mean_of_the_others():
    means = Means()
    for terms in ({"loss": 1.0}, {"loss": 3.0, "critic": 5.0}):
        means.add({name: torch.tensor(value) for name, value in terms.items()})
    assert means.take(2) == {"loss": 2.0, "critic": 5.0}


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_loss_that_is_not_finite_is_named_with_its_batch_and_the_remedy(value):
    means = Means()
    for kl in (1.0, value, 1.0, float("nan")):
        means.add({"loss": torch.tensor(1.0), "kl_w": torch.tensor(kl)})
    with pytest.raises(TrainingError, match=f"^kl_w = {value} in batch 7: expected finite numbers; lower the learning"):
        means.take(9)


def write(log, first, *batches):
    with log:
        log.start(first)
        for batch in batches:
            log.write("batch", batch, 1, 8, {"loss": 0.5})


def test_a_resumed_log_loses_what_came_after_the_checkpoint_and_a_line_cut_off(tmp_path):
    write(RunLog(tmp_path, 10, quiet=True), 0, 1, 2, 3, 4)
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n[]\n{"kind": "batch", "ba')
    write(RunLog(tmp_path, 10, quiet=True), 2, 3, 4, 5)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["batch"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(line["images_per_second"] > 0 and line["loss"] == 0.5 for line in lines)


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    write(RunLog(None, 10), 0, 1, 2)
    plain = capsys.readouterr().err
    assert plain.count("\n") == 1  # one each half minute
    assert plain.startswith("epoch 1, batch 1 of 10, 0:00:")
    assert plain.endswith(" examples a second; weighted sum 0.5\n")
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    write(RunLog(None, 10), 0, 1, 2, 3, 4)
    slow = capsys.readouterr().err
    assert slow.count("\n") > 2
    monkeypatch.undo()
    write(RunLog(None, 2), 0, 1, 2)
    assert "batch 2 of 2, 0:00:00 left" in capsys.readouterr().err  # the last one is always said


def test_terms_are_said_in_words_and_an_entry_is_due_after_half_a_minute(capsys, monkeypatch):
    log = RunLog(None, 10)
    with log:
        log.start(0)
        assert not log.is_due()
        log.write("batch", 1, 1, 8, {"kl_z": 3.0, "negative_entropy": -2.0, "learning_rate": 1e-3})
        monkeypatch.setattr(time, "monotonic", lambda: log.last_time + 31)
        assert log.is_due()
    assert capsys.readouterr().err.endswith("; nats: KL of z 3, minus the adversary's entropy -2\n")


def test_quiet_says_nothing(capsys):
    write(RunLog(None, 10, quiet=True), 0, 1)
    assert capsys.readouterr().err == ""


def test_what_is_watched_is_named_only_where_no_term_is_to_blame():
    for row, words in (
        ({"loss": float("nan"), "kl_w.Smiling": float("nan"), "leakage": float("inf")}, "^loss = nan in batch 1:"),
        ({"loss": 1.0, "kl_w.Smiling": float("nan")}, "^kl_w.Smiling = nan in batch 1:"),
    ):
        means = Means()
        means.add({name: torch.tensor(value) for name, value in row.items()})
        with pytest.raises(TrainingError, match=words):
            means.take(1)


@pytest.mark.parametrize("later", [0.0, 990.0])
def test_what_is_done_between_two_batches_counts_before_it_alone_and_never_in_the_speed(monkeypatch, capsys, later):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with RunLog(None, 20) as log:
        log.start(0, later=later)
        now[0] = 10.0
        log.write("batch", 10, 1, 8, {"loss": 0.5})
        now[0] = 500.0
        log.aside("fitting: step 1 of 2")
        now[0] = 1000.0
        log.aside("fitting: step 2 of 2")
        now[0] = 1001.0
        log.write("batch", 11, 2, 8, {"loss": 0.5})
        now[0] = 1040.0
        log.write("batch", 12, 2, 8, {"loss": 0.5})
    first, *asides, next_line, last = capsys.readouterr().err.splitlines()
    assert ("0:16:40 left" if later else "0:00:10 left") + ", 8 examples a second" in first
    assert asides == ["fitting: step 1 of 2", "fitting: step 2 of 2"]
    assert "0:00:09 left, 8 examples a second" in next_line
    assert "0:00:33 left, 0 examples a second" in last


def test_a_resumed_run_says_so(capsys):
    with RunLog(None, 20) as log:
        log.start(7)
    assert capsys.readouterr().err == "resuming after batch 7 of 20\n"
