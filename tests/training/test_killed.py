"""A run that is killed ten times, with a full disk and a spoilt checkpoint, ends in the bits of one that is left alone.

As a script, in a mount namespace of its own: the runs, each in a process that is forked, on a small file system.
"""

from __future__ import annotations

import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from csvae_hub import erasure
from csvae_hub.training.config import TrainerConfig
from csvae_hub.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
CONFIG = TrainerConfig(epochs=60, batch_size=8)
PARTS = {"eraser": {}, "balanced": {}, "stronger_adversary": {"steps": 2, "memory": 3}}
BATCHES, KILLS = 300, 10
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def mounts() -> bool:
    """True where a process may mount a file system of its own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True).returncode == 0


@pytest.mark.skipif(not mounts(), reason="needs a file system of its own, which Linux lets a user mount")
def test_300_batches_killed_ten_times_with_a_full_disk_and_a_spoilt_checkpoint_end_in_the_same_bits(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    command = [*NAMESPACE, sys.executable, __file__, str(tmp_path)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert len(told["killed_after"]) == KILLS
    assert len(set(told["killed_after"])) > KILLS / 2
    assert told["killed_after"] == sorted(told["killed_after"])
    assert told["killed_after"][-1] > BATCHES / 2
    assert told["no_room"].startswith(f"the checkpoint {told['folder']}/checkpoints/batch-")
    assert "No space left on device" in told["no_room"]
    assert told["left_by_a_full_disk"] == told["before_the_disk_was_full"]
    (said,) = told["said_of_the_spoilt_one"]
    assert f"checkpoint {told['folder']}/checkpoints/{told['spoilt']} can't be read (its checksum differs" in said
    assert told["resumed_at"] == int(told["the_one_before"][6:])
    disturbed, whole = (load_file(tmp_path / f"{name}.safetensors") for name in ("disturbed", "whole"))
    assert disturbed.keys() == whole.keys()
    for name, value in whole.items():
        assert value.numpy().tobytes() == disturbed[name].numpy().tobytes(), name


# -- the script ---------------------------------------------------------------------------------------------------


def trainer(folder: Path | None) -> Trainer:
    """The run; it writes a checkpoint after each batch."""
    helpers = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    objective = helpers["_build"](parts=PARTS, erase=True)
    return Trainer(objective, CONFIG, helpers["_data"](), None, folder, quiet=True, checkpoint_minutes=0.0)


def started(folder: Path, told: Path) -> int:
    """Forks a process that goes on with the run; it leaves in `told` how it ended, and beside it the weights."""
    child = os.fork()
    if child:
        return child
    ended: dict[str, object] = {}
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run, step = trainer(folder), Trainer.train_step

            def first(x: torch.Tensor, y: torch.Tensor, batch: int) -> dict[str, torch.Tensor]:
                ended.setdefault("resumed_at", batch)
                return step(run, x, y, batch)

            run.train_step = first
            try:
                run.fit()
                state = {
                    **run.objective.state_dict(),
                    **{f"average.{k}": v for k, v in run.average.state_dict().items()},
                }
                save_file({name: value.contiguous() for name, value in state.items()}, told.with_suffix(".safetensors"))
            except OSError as error:
                ended["error"] = str(error)
            ended["said"] = [str(warning.message) for warning in said]
        told.write_text(json.dumps(ended))
    finally:
        os._exit(0)


def finished(folder: Path, told: Path) -> dict[str, object]:
    """How a process that is left alone ended."""
    os.waitpid(started(folder, told), 0)
    return json.loads(told.read_text())


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoints/batch-*"))


def main(out: Path) -> None:
    """Kills the run ten times, fills its disk, spoils its newest checkpoint, and lets it end; then one left alone."""
    torch.set_num_threads(1)
    erasure.STEPS = 20
    small = out / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(small)], check=True)
    folder, rng, killed = small / "run", random.Random(0), list[int]()
    for share in sorted(rng.random() for _ in range(KILLS)):  # moments, in batches; the wait puts them anywhere in one
        wanted, child = int(0.9 * BATCHES * share), started(folder, out / "killed.json")
        while int((checkpoints(folder) or ["batch-0"])[-1][6:]) < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        killed.append(int((checkpoints(folder) or ["batch-0"])[-1][6:]))
    told: dict[str, object] = {"folder": str(folder), "killed_after": killed}

    told["before_the_disk_was_full"] = before = checkpoints(folder)
    size = sum(path.stat().st_size for path in (folder / "checkpoints" / before[-1]).iterdir())
    free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
    ballast = small / "ballast"
    ballast.write_bytes(bytes(free - 9 * size // 10))  # room for the log, and for most of a checkpoint
    told["no_room"] = finished(folder, out / "full.json")["error"]
    told["left_by_a_full_disk"] = sorted(path.name for path in (folder / "checkpoints").iterdir())
    ballast.unlink()

    told["the_one_before"], told["spoilt"] = checkpoints(folder)[-2:]  # a third, if the kill came before it was removed
    path = folder / "checkpoints" / told["spoilt"] / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    last = finished(folder, out / "disturbed.json")
    told["said_of_the_spoilt_one"], told["resumed_at"] = last["said"], last["resumed_at"]
    finished(small / "whole", out / "whole.json")
    (out / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
