"""Two processes train as one does with the same whole batches. As a script, one process of such runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from csvae_hub import erasure
from csvae_hub.errors import ConfigError
from csvae_hub.training.checkpoints import locked
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.processes import join
from csvae_hub.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
BATCHES, STOPPED = 50, 23
RATES = {"learning_rate": 3e-4, "adversary_learning_rate": 3e-4}
CONFIG = TrainerConfig(epochs=12, batch_size=8, **RATES)  # ten epochs of five batches, and two of rest
REST = {"rest": {"epochs": 2, "weight": 0.5}}


def without_kinks(patch):
    """Smooths the activations: at a kink rounding decides which of two gradients a unit has, and grows from there."""
    patch.setattr(F, "relu", lambda x, inplace=False: F.silu(x))
    patch.setattr(F, "leaky_relu", lambda x, slope: slope * x + (1 - slope) * F.silu(x))


class Recorder:
    """Keeps the terms of every batch; sends itself SIGTERM in a batch, where one is given."""

    def __init__(self, signal_at=None):
        self.terms, self.signal_at = [], signal_at

    def after_batch(self, trainer, batch, terms):
        self.terms.append({name: value.item() for name, value in terms.items()})
        if batch == self.signal_at:
            signal.raise_signal(signal.SIGTERM)


def trainer(folder, config=CONFIG, quiet=True, signal_at=None, **options):
    helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    objective = helpers["_build"](parts={**helpers["EVERY_PART"], **REST}, erase=True)
    return Trainer(
        objective, config, helpers["_data"](), None, folder, quiet=quiet, callbacks=[Recorder(signal_at)], **options
    )


def terms_of(run):
    return run.callbacks.callbacks[0].terms


def weights_of(run):
    return {name: value.double().sum().item() for name, value in run.objective.state_dict().items()}


def together(count, *command):
    """Runs a script in so many processes that find one another as under torchrun; all have to end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "PYTHONWARNINGS": "error"}
    running, command = [], [sys.executable, *map(str, command)]
    with TemporaryFile("w+") as said:
        try:
            for rank in map(str, range(count)):
                environment = {**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}
                running.append(subprocess.Popen(command, env=environment, stderr=said))
            codes = [process.wait(timeout=600) for process in running]
        finally:
            for process in running:
                process.kill()
                process.wait()
        said.seek(0)
        assert codes == [0] * count, said.read()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of the runs of two processes, and what each of them found."""
    folder = tmp_path_factory.mktemp("two")
    together(2, __file__, folder)
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture
def one(monkeypatch):
    """One process with the same batches."""
    without_kinks(monkeypatch)
    run = trainer(None)
    run.fit()
    return run


def apart(terms, others):
    """The largest difference of terms, in nats and where they are above 1 in parts of them."""
    assert len(terms) == len(others)
    found = 0.0
    for a, b in zip(terms, others, strict=True):
        assert a.keys() == b.keys()
        found = max(found, *(abs(a[name] - b[name]) / max(1.0, abs(b[name])) for name in a))
    return found


def test_two_processes_and_one_with_the_same_batches_give_the_same_terms(two, one):
    _, (first, second) = two
    assert first["whole"]["terms"] == second["whole"]["terms"]
    assert first["whole"]["weights"] == second["whole"]["weights"]
    found = first["whole"]["terms"]
    assert len(found) == BATCHES + 10
    learning = {"adversary", "critic", "negative_entropy", "removed", "kl_w", "kl_z", "leakage"}
    assert all(terms.keys() >= learning for terms in found[:BATCHES])
    assert all("consistency" in terms for terms in found[BATCHES:])
    assert apart(found[:BATCHES], terms_of(one)[:BATCHES]) < 1e-5
    assert apart(found, terms_of(one)) < 1e-4


def test_the_first_process_alone_writes(two):
    folder, (first, second) = two
    assert (first["whole"]["folder"], second["whole"]["folder"]) == (str(folder / "whole"), "None")
    log = [json.loads(line) for line in (folder / "whole" / "log.jsonl").read_text().splitlines()]
    assert [entry["batch"] for entry in log if entry["kind"] == "epoch"] == [5 * n for n in range(1, 13)]
    means = [entry for entry in log if entry["kind"] == "batch"]
    last = first["whole"]["terms"][-5:]
    assert means[-1]["reconstruction"] == pytest.approx(sum(t["reconstruction"] for t in last) / 5, rel=1e-6)
    training = json.loads((folder / "whole" / "model" / "training.json").read_text())
    assert (training["processes"], training["parts_of_a_batch"]) == (2, 1)


def test_sigterm_in_one_process_ends_all_in_the_same_batch_and_they_go_on_to_the_same_bits(two):
    folder, (first, second) = two
    assert (first["status"], second["status"]) == (143, 143)
    assert [path.name for path in (folder / "stopped" / "checkpoints").iterdir()] == [f"batch-{STOPPED:09d}"]
    assert not (folder / "stopped" / "model").exists()
    assert first["resumed"]["terms"] == second["resumed"]["terms"] == first["whole"]["terms"][STOPPED:]
    bits = [load_file(folder / name / "model" / "model.safetensors") for name in ("whole", "resumed")]
    assert all(torch.equal(value, bits[1][name]) for name, value in bits[0].items())


def test_one_process_goes_on_from_two_and_says_that_the_bits_differ(two, one, tmp_path, capsys):
    folder, _ = two
    shutil.copytree(folder / "stopped", tmp_path / "run")
    run = trainer(tmp_path / "run", quiet=False)
    run.fit()
    said = "the checkpoint was made by processes: 2, parts of a batch: 1; now they are 1 and 1"
    assert said in capsys.readouterr().err
    assert apart(terms_of(run), terms_of(one)[STOPPED:]) < 3e-4  # rounding of sums in another order grows by the batch


def test_where_the_first_process_may_not_begin_none_does(two):
    _, (first, second) = two
    assert first["refused"] == second["refused"]
    assert "expected a folder in which no other run is training" in first["refused"]


@pytest.mark.parametrize(("size", "parts", "shares"), [(9, 2, 2), (6, 4, 4), (4, 4, 4)])
def test_a_batch_that_can_t_be_shared_is_an_error(size, parts, shares):
    expected = rf"^batch_size: expected a multiple of {shares} and at least {2 * shares} \(1 process.*, got {size}$"
    with pytest.raises(ConfigError, match=expected):
        trainer(None, replace(CONFIG, batch_size=size), accelerator=join(parts))


def test_the_command_trains_under_torchrun(tmp_path):
    sizes = ("trainer.epochs=2", "trainer.batch_size=16", "data.examples=64", "trainer.precision=float32")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "csvae_hub", "train"]
    command += ["--recipe=paper-swiss-roll", "-o", str(tmp_path), "--clip-norm=5"]
    command += [word for size in sizes for word in ("--set", size)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"trained: {tmp_path / 'model'}"]
    assert done.stderr.count("csvae train: paper-swiss-roll") == 1
    training = json.loads((tmp_path / "model" / "training.json").read_text())
    assert (training["processes"], training["clip_norm"]) == (2, 5.0)


def main(folder):
    """One of two processes: a whole run, one that the second process's SIGTERM stops, the same resumed, one refused."""
    erasure.STEPS = 20
    without_kinks(pytest.MonkeyPatch())
    whole = trainer(folder / "whole")
    whole.fit()
    found = {"whole": {"terms": terms_of(whole), "weights": weights_of(whole), "folder": str(whole.folder)}}
    rank = whole.processes.rank
    try:
        trainer(folder / "stopped", signal_at=STOPPED if rank == 1 else None).fit()
    except SystemExit as ended:
        found["status"] = ended.code
    if rank == 0:
        shutil.copytree(folder / "stopped", folder / "resumed")
    resumed = trainer(folder / "resumed")
    resumed.fit()
    found["resumed"] = {"terms": terms_of(resumed)}
    with locked(folder / "taken") if rank == 0 else contextlib.nullcontext(), redirect_stderr(io.StringIO()):
        try:
            trainer(folder / "taken").fit()
        except ConfigError as error:
            found["refused"] = str(error)
    (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
