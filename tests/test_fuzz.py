"""Spoilt weights folders, a short form of benchmarks/fuzz.py, and faults that its judge has to find."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from csvae_hub.errors import ConfigError, WeightsError
from csvae_hub.models import AttributeModel

pytest.importorskip("resource", reason="the limits of benchmarks/fuzz.py are those of Unix")


@pytest.fixture(scope="module")
def fuzz():
    folder = str(Path(__file__).resolve().parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("fuzz")
    finally:
        sys.path.remove(folder)
        for name in ("fuzz", "mutations"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def judge(fuzz, tmp_path_factory):
    return fuzz.Judge(1, tmp_path_factory.mktemp("spoilt"))


@pytest.fixture(scope="module")
def spoil(fuzz, judge):
    return lambda index: fuzz.spoil(judge.folders, 1, index)


def test_a_spoilt_folder_gives_a_named_error_or_a_correct_model(judge):
    verdicts = [judge(index) for index in range(300)]
    assert [verdict for verdict in verdicts if verdict.finding] == []
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    kinds = {"ConfigError", "CorruptWeightsError", "WeightsMismatchError", "the same model", "a model of other numbers"}
    assert all(outcomes[kind] >= 3 for kind in kinds), outcomes


def test_a_number_and_a_seed_decide_what_is_spoilt_and_something_is(fuzz, judge, spoil):
    assert [spoil(i) for i in range(20)] == [spoil(i) for i in range(20)]
    assert spoil(0) != fuzz.spoil(judge.folders, 2, 0)
    spoilt = [base for base, files, _ in map(spoil, range(100)) if files != judge.folders[base]]
    assert len(spoilt) > 90
    assert set(spoilt) == set(judge.folders)


def replaced(change):
    """A loader that changes the whole model before it gives it."""

    def load(folder):
        model = AttributeModel.from_pretrained(folder, device="cpu")
        with torch.no_grad():
            change(model)
        return model

    return load


def raising(error):
    def load(folder):
        raise error

    return load


FAULTS = {
    "an error without a name": (raising(KeyError("z_dim")), "KeyError: 'z_dim'"),
    "an error of torch": (raising(RuntimeError("out of memory")), "RuntimeError: out of memory"),
    "other numbers": (replaced(lambda m: next(m.parameters()).add_(1)), "other tensors than in the file"),
    "another config": (
        replaced(lambda m: vars(m).update(config=replace(m.config, z_dim=9))),
        "config.json says other than the model has",
    ),
    "a config that is none": (replaced(lambda m: vars(m).update(config=None)), "TypeError: "),
    "a picture": (replaced(lambda m: vars(m).update(reconstruct=lambda x: x)), "other pictures from the same weights"),
    "no picture": (replaced(lambda m: vars(m).update(reconstruct=lambda x: x.nothing)), "can't decode: AttributeError"),
    "a shape": (replaced(lambda m: vars(m).update(reconstruct=lambda x: x[:1])), "a picture of shape (1,"),
}


@pytest.mark.parametrize("kind", list(FAULTS))
def test_the_judge_finds_a_fault(judge, fuzz, monkeypatch, kind):
    load, words = FAULTS[kind]
    monkeypatch.setattr(fuzz, "spoil", lambda folders, seed, index: ("csvae", dict(folders["csvae"]), "whole"))
    monkeypatch.setattr(fuzz, "load", load)
    verdict = judge(0)
    assert verdict.outcome == "finding"
    assert verdict.finding.startswith(words)


@pytest.mark.parametrize("error", [WeightsError("x"), ConfigError("x")])
def test_a_named_error_is_no_finding(judge, fuzz, monkeypatch, error):
    monkeypatch.setattr(fuzz, "load", raising(error))
    assert judge(0).finding == ""
    assert judge(0).outcome == type(error).__name__


def test_memory_is_a_finding(judge, fuzz, monkeypatch):
    def load(folder):
        bytearray(fuzz.GROWTH + (8 << 20))[::4096] = b"x" * ((fuzz.GROWTH + (8 << 20)) // 4096)
        raise ConfigError("x")

    if not fuzz._memory():
        pytest.skip("Linux alone says how much memory a process used at most")
    monkeypatch.setattr(fuzz, "load", load)
    assert judge(0).finding.endswith(" MiB of memory")
