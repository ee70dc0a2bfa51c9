"""The benchmark of the parts' worth: what each row trains, and what the timing leaves behind."""

from __future__ import annotations

import pytest

from csvae_hub.data import SyntheticFaces
from csvae_hub.training.parts import critic


@pytest.fixture
def ablation(script):
    return script("ablation")


def test_each_row_lacks_what_its_name_says(ablation):
    rows = ablation.rows({})
    assert {name: set(recipe.parts) for name, recipe in rows.items()} == {
        "all parts": {"critic", "flow", "rest"},
        "without critic": {"flow", "rest"},
        "without flow": {"critic", "rest"},
        "without rest and flow": {"critic"},
        ablation.PAPER: set(),
    }
    assert {name for name, recipe in rows.items() if recipe.model.flow} == {"all parts", "without critic"}
    every = rows["all parts"]
    assert all(recipe.objective == every.objective and recipe.trainer == every.trainer for recipe in rows.values())


def test_critics_work_while_they_are_timed_and_learn_to_read_first_in_what_follows(ablation, monkeypatch):
    seen = []
    losses = critic.Critic.losses

    def spied(self, step):
        seen.append((self.works, critic.LESSONS))
        return losses(self, step)

    monkeypatch.setattr(critic.Critic, "losses", spied)
    monkeypatch.setattr(ablation, "TURNS", 2)
    lessons = critic.LESSONS
    rows = ablation.rows({"trainer.batch_size": "4", "model.backbone.width": "4", "trainer.precision": "float32"})
    data = SyntheticFaces(32, 0, 32).select(rows["all parts"].model.attributes)
    times = ablation.times(rows, data)
    assert times.keys() == rows.keys()
    assert all(seconds > 0 for seconds in times.values())
    assert seen == [(True, lessons)] * 6  # three rows with a critic, twice
