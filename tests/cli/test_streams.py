"""Text from strangers on a terminal, and terminals that can't print it or are gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EVIL = "a\x1b[2J\x9b31m\u202e\u2066\nfailed: b\x7f.png"
SAFE = r"a\x1b[2J\x9b31m\u202e\u2066\nfailed: b\x7f.png"
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs file names and shells of POSIX")
PROGRAM = [sys.executable, "-c", "from csvae_hub.cli import main; main(prog_name='csvae')"]


def call(*arguments, code=0, shell="", **environment):
    """Runs `csvae` in a process of its own, by a shell that redirects its streams; gives its two outputs as bytes."""
    command = [*PROGRAM, *map(str, arguments)]
    command = ["sh", "-c", f'"$@" {shell}', "sh", *command]
    done = subprocess.run(command, capture_output=True, env=os.environ | environment)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    return done


@POSIX
def test_file_names_reach_the_terminal_escaped(run, weights, folder):
    Path(EVIL).write_bytes(Path("photos/0.png").read_bytes())
    Path("broken.png").write_text("")
    Path("broken.png").rename(f"photos/{EVIL}")
    common = ("Smiling=1", "--aligned", "--model", weights)
    failed = run("edit", "photos", *common, "-o", EVIL[:-4], code=1)
    assert f"failed: photos/{SAFE}: " in failed.stderr
    assert f"10 of 11 written to {SAFE[:-4]}" in failed.stdout
    outputs = [
        failed,
        run("edit", EVIL, *common, "-o", "photos/0.png/x.png", code=1),
        run("edit", "gone" + EVIL, *common, "-o", "out", code=2),
        run("edit", "photos", *common, "-o", "out", "--" + EVIL, code=2),
        run("edit", "photos", *common, f"{EVIL}=1", "-o", "out", code=2),
        run("sweep", "gone" + EVIL, "Smiling", "-o", "strip.png", code=2),
        run("sweep", EVIL, "Smiling", "--aligned", "--model", weights, "-o", EVIL.replace("a", "b", 1)),
        run("info", "gone" + EVIL, code=2),
        run("info", EVIL),
        run("train", "--recipe", EVIL, "-o", "run", code=2),
        run(EVIL, code=2),
    ]
    for result in outputs:
        for line in (result.stdout + result.stderr).splitlines():
            assert line.isprintable(), line
            assert not line.startswith("failed: b")


@POSIX
def test_what_a_stranger_wrote_in_a_config_reaches_the_terminal_escaped(run, weights, tmp_path):
    config = json.loads((weights / "config.json").read_text())
    config["backbone"]["name"] = EVIL
    (tmp_path / EVIL).mkdir()
    for name, content in (("config.json", config), ("preprocessor.json", {})):
        (tmp_path / EVIL / name).write_text(json.dumps(content))
    shown = run("info", tmp_path / EVIL).stdout
    assert f"backbone {SAFE}" in shown
    assert all(line.isprintable() for line in shown.splitlines())
    content = run("info", tmp_path / EVIL, "--json").stdout
    assert content.isascii()
    assert json.loads(content)["config"]["backbone"]["name"] == EVIL
    assert json.loads(content)["folder"] == str(tmp_path / EVIL)


@POSIX
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_every_terminal_can_print_every_file_name(weights, folder, encoding):
    names = [os.fsdecode(b"photos/\xff.png"), "photos/眼鏡🙂.png"]
    for name in names:
        Path(name).write_bytes(Path("photos/0.png").read_bytes())
    command = ("edit", *names, "Smiling=1", "--aligned", "--model", weights, "-o")
    done = call(*command, "眼鏡", "--json", PYTHONIOENCODING=encoding)
    assert [entry["input"] for entry in json.loads(done.stdout)["edited"]] == names
    for name in names:
        assert (Path("眼鏡") / Path(name).name).is_file()
    done = call("edit", *(f"{name}.gone" for name in names), "Smiling=1", "-o", "x", code=2, PYTHONIOENCODING=encoding)
    assert b"no such file or folder" in done.stderr
    call("edit", "--help", PYTHONIOENCODING=encoding)


@POSIX
@pytest.mark.parametrize("shell", ["2>&-", ">&-", "<&- >&- 2>&-", "2>&1 | true"])
def test_work_is_done_where_nobody_listens(weights, folder, shell):
    Path("photos/4.png").write_text("this is no picture")
    options = ("--aligned", "--model", weights, "-o", "out")
    piped = "|" in shell
    call("edit", "photos", "Smiling=1", *options, shell=shell, code=0 if piped else 1)
    assert len(list(Path("out").rglob("*.png"))) == 9
    for path in Path("out").rglob("*.png"):
        Image.open(path).verify()
    call("info", "nowhere", shell=shell, code=0 if piped else 2)
    call("list", shell=shell)
