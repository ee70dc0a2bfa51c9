"""The Hub: each test of tests/hub/client, run together in one process of their own, is a test here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from csvae_hub.hub.upload import is_stamped, stamp

HERE = Path(__file__).resolve().parent
FILES = [HERE / "client/transfers.py", HERE / "client/failures.py"]
NAMES = [
    name for file in FILES for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each test said, by its name without parameters: nothing where it passed."""
    report = tmp_path_factory.mktemp("report") / "report.xml"
    options = ["-q", "-p", "no:cacheprovider", "-p", "hub_setting", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, FILES)]
    path = os.pathsep.join([str(HERE / "client"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "CSVAE_HUB_TEST_SERVER": "1"}
    run = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True)
    assert report.is_file(), run.stdout + run.stderr
    said: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["name"].partition("[")[0]
        failures = [child.text or "" for child in case if child.tag in ("failure", "error", "skipped")]
        said[name] = said.get(name, "") + "".join(failures)
    return said


@pytest.mark.parametrize("name", NAMES)
def test_with_the_real_client(outcomes, name):
    assert outcomes[name] == ""


@pytest.mark.parametrize("card", ["# A card\n", "# A card", "---\nlicense: mit\n---\n\n# Ünï\n\n"])
def test_a_stamp_tells_whether_a_card_was_edited(card):
    stamped = stamp(card)
    assert stamped.startswith(card.rstrip("\n"))
    assert is_stamped(stamped)
    assert stamp(stamped) == stamped
    assert not is_stamped(card)
    for place in (0, len(card) // 2, len(stamped)):
        assert not is_stamped(f"{stamped[:place]}x{stamped[place:]}")
