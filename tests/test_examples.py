"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t

from csvae_hub import CSVAE
from csvae_hub.data import SyntheticFaces

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


augmentation, plain_loop = load("augmentation"), load("plain_loop")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 150


# -- augmentation -------------------------------------------------------------------------------------------------


def test_augmentation_runs_and_writes_what_it_prints(tmp_path, monkeypatch, capsys):
    output = tmp_path / "found.json"
    options = ["--seeds", "0", "--faces", "64", "--model-epochs", "1", "--runs", str(tmp_path), "-o", str(output)]
    monkeypatch.setattr(sys, "argv", ["examples/augmentation.py", *options])
    augmentation.main()
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["command"] == " ".join(["python", "examples/augmentation.py", *options])
    assert output.with_suffix(".md").read_text(encoding="utf-8") in capsys.readouterr().out
    (run,) = found["runs"].values()
    assert all(0 <= share <= 1 for figures in run.values() for shares in figures.values() for share in shares)
    assert run["nothing"]["kept"] != run["CSVAE of correlated faces, whole"]["kept"]


def test_groups_part_the_faces():
    data = SyntheticFaces(200, 0, 16, correlations={("Smiling", "Eyeglasses"): 0.9})
    groups = augmentation.groups(data)
    assert sorted(np.concatenate(groups).tolist()) == list(range(200))
    smiles, glasses = data.labels[:, 3], data.labels[:, 1]
    for rows, cell in zip(groups, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        assert set(zip(smiles[rows], glasses[rows], strict=True)) == {cell}
    assert min(len(groups[1]), len(groups[2])) < max(len(groups[0]), len(groups[3])) / 3


def test_changed_data_gives_edited_pictures_and_one_attribute():
    data = SyntheticFaces(8, 0, 16)
    changed = augmentation.Changed(data, lambda images, rows: images + rows.view(-1, 1, 1, 1))
    rows = torch.tensor([3, 1])
    images, labels = changed.batch(rows)
    assert torch.equal(images, data.batch(rows)[0] + rows.view(-1, 1, 1, 1))
    assert torch.equal(labels, data.select(["Smiling"]).batch(rows)[1])


def test_table_has_the_interval_of_student():
    runs = [{"nothing": {"groups": [share, 1.0]}} for share in (0.2, 0.5, 0.6)]
    low, high = t.interval(0.95, 2, np.mean([20, 50, 60]), np.std([20, 50, 60], ddof=1) / 3**0.5)
    *_, row = augmentation.table(runs).splitlines()
    assert row.split(" | ")[2] == f"{(low + high) / 2:.1f} ± {(high - low) / 2:.1f} %"


# -- plain loop ---------------------------------------------------------------------------------------------------


def test_the_plain_loop_is_plain():
    text = (EXAMPLES / "plain_loop.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert "Trainer" not in text
    for page, words in (("examples/README.md", "lines in all"), ("docs/training.md", "lines.\n")):
        assert f"{len(text.splitlines())} {words}" in (EXAMPLES.parent / page).read_text(encoding="utf-8")


def test_the_plain_loop_reads_its_options_before_it_trains():
    command = [sys.executable, str(EXAMPLES / "plain_loop.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "required: -o/--output" in done.stderr


def test_the_plain_loop_trains_every_parameter_of_both_minimisations_and_lowers_the_loss(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    built = []
    create = plain_loop.create_model
    monkeypatch.setattr(plain_loop, "create_model", lambda config: built.append(create(config)) or built[0])
    steps = []
    monkeypatch.setattr(torch.optim.Adam, "step", counted(torch.optim.Adam.step, steps))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = plain_loop.train(faces=128, epochs=6)
    first = [int(id(optimizer) != id(steps[0])) for optimizer in steps]
    assert first == [0, 1] * 12  # the model's and the adversary's in turn, on two batches an epoch
    losses = [float(line.split("reconstruction ")[1].split(",")[0]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    fresh = create(model.config)
    assert not model.training
    assert not torch.equal(model.class_means, fresh.class_means)
    model.save_pretrained(tmp_path)
    loaded = CSVAE.from_pretrained(tmp_path, device="cpu")
    images = SyntheticFaces(4, 1, 32).batch(range(4))[0]
    assert torch.equal(loaded.reconstruct(images), model.reconstruct(images))


def counted(step, steps):
    """The step of an optimiser, noted; its own parameters have gradients then, and no other's."""

    def noting(self, *arguments):
        steps.append(self)
        for optimizer in steps[-2:]:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            assert all((grad is not None) == (optimizer is self) for grad in grads)
        return step(self, *arguments)

    return noting
