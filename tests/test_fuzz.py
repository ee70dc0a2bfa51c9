"""Spoilt weights folders: a short form of benchmarks/fuzz.py, faults that its judge has to find, and properties."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import signal
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from csvae_hub import hub
from csvae_hub.config import ModelConfig, from_dict, to_dict
from csvae_hub.errors import ConfigError, CorruptWeightsError, WeightsError
from csvae_hub.hub.tensors import read_tensors
from csvae_hub.images import Preprocessor
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


def test_numbers_that_are_not_finite_are_a_finding_though_the_file_says_so(judge, fuzz, monkeypatch):
    data = judge.folders["csvae"][hub.WEIGHTS]
    spoilt = {**judge.folders["csvae"], hub.WEIGHTS: data[:-4] + bytes.fromhex("0000c07f")}
    last = list(fuzz.tensors(data))[-1]
    monkeypatch.setattr(fuzz, "spoil", lambda folders, seed, index: ("csvae", spoilt, "NaN"))
    assert judge(0).outcome == "NonFiniteWeightsError"

    def load(folder):
        model = AttributeModel.from_pretrained(fuzz.FOLDERS / "csvae", device="cpu")
        model.state_dict()[last].view(-1)[-1] = torch.nan
        return model

    monkeypatch.setattr(fuzz, "load", load)
    assert judge(0).finding in ("numbers that are not finite", "other tensors than in the file")


@pytest.mark.parametrize(
    ("exitcode", "words"),
    [
        (-signal.SIGPROF, "more than 5 s of CPU time"),
        (-signal.SIGSEGV, "crash: exit code -11"),
        (1, "crash: exit code 1"),
    ],
)
def test_what_becomes_of_a_worker_is_said(fuzz, exitcode, words):
    worker = fuzz.Worker.__new__(fuzz.Worker)
    worker.connection, theirs = multiprocessing.Pipe()
    theirs.close()
    worker.process = SimpleNamespace(join=lambda: None, exitcode=exitcode)
    assert worker.answer() == words


def test_a_worker_that_hangs_is_killed(fuzz, monkeypatch):
    monkeypatch.setattr(fuzz, "PATIENCE", 0.01)
    worker, killed = fuzz.Worker.__new__(fuzz.Worker), []
    worker.connection, theirs = multiprocessing.Pipe()
    worker.process = SimpleNamespace(kill=lambda: killed.append(True))
    assert worker.answer() == "no answer in 0.01 s"
    assert killed == [True]
    theirs.close()


# -- properties -------------------------------------------------------------------------------------------------------

TYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "BOOL": torch.bool,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}

# The same examples every time, each within a bound that a busy machine keeps as well.
bounded = settings(max_examples=250, derandomize=True, deadline=timedelta(seconds=10), database=None)

NUMBERS = st.integers(-2, 9) | st.sampled_from([2**31, 2**32, 2**61, 2**63, 2**64 - 1, 2**64]) | st.floats()
WORDS = st.text(max_size=5) | st.sampled_from([*TYPES, "F8_E4M3", "C64", "f32", "csvae", "vae", "mlp", "resnet", "pt"])
VALUES = (
    st.none()
    | st.booleans()
    | NUMBERS
    | WORDS
    | st.recursive(
        st.none() | st.booleans() | NUMBERS | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=6,
    )
)


def places(node):
    """Every container and key of a JSON tree."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from places(node[key])


@st.composite
def changed(draw, tree):
    """A JSON tree with one to three values changed, taken out, exchanged or added."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        (node, key), (other, its) = (draw(st.sampled_from([*places(tree)] or [(tree, "a")])) for _ in range(2))
        act = draw(st.sampled_from(("value", "value", "near", "drop", "exchange", "add")))
        if act == "near" and type(node.get(key) if isinstance(node, dict) else node[key]) is int:
            node[key] += draw(st.integers(-8, 8))
        elif act == "drop" and tree:
            del node[key]
        elif act == "exchange" and tree:
            node[key], other[its] = (json.loads(json.dumps(value)) for value in (other[its], node[key]))
        elif act == "add" and isinstance(node, dict):
            node[draw(WORDS)] = draw(VALUES)
        else:
            node[key] = draw(VALUES)
    return tree


@st.composite
def tensors_of_a_file(draw):
    """Header entries and bytes of a whole file of a few small tensors."""
    header, body = {}, b""
    for name in draw(st.lists(st.text(max_size=4).filter("__metadata__".__ne__), max_size=4, unique=True)):
        kind, shape = draw(st.sampled_from(list(TYPES))), draw(st.lists(st.integers(0, 3), max_size=3))
        size = TYPES[kind].itemsize * torch.Size(shape).numel()
        data = bytes(size) if kind == "BOOL" else draw(st.binary(min_size=size, max_size=size))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + size]}
        body += data
    return header, body


def written(folder, text, body=b"", claimed=None):
    """The path of a safetensors file with this header and these bytes after it."""
    path = folder / "model.safetensors"
    path.write_bytes((len(text) if claimed is None else claimed).to_bytes(8, "little") + text + body)
    return path


def of_the_same_kinds(one, other):
    """Whether the values of two trees are of the same types, as far as they have the same keys."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(of_the_same_kinds(one[key], other[key]) for key in one.keys() & other.keys())
    return type(one) is type(other) or None in (one, other)


def refused(error, place):
    """However much of the file an error quotes, it can be read."""
    assert len(str(error)) < 2000 + len(str(place))


def read(path, fuzz):
    """What the file holds, once it is known to be what another reader makes of the same bytes; None if it is refused.

    Bits are compared, since any of them may come, NaN as well.
    """
    try:
        found = read_tensors(path)
    except WeightsError as error:
        refused(error, path)
        return None
    whole = {name: tensor.clone() for name, tensor in fuzz.tensors(path.read_bytes()).items()}
    assert {name: (t.shape, t.dtype) for name, t in found.items()} == {k: (t.shape, t.dtype) for k, t in whole.items()}
    for name, tensor in found.items():
        bits = [each.reshape(-1).view(torch.uint8).tolist() for each in (tensor, whole[name])]
        assert bits[0] == bits[1]
    return found


@bounded
@given(st.binary(max_size=100), st.none() | st.integers(0, 120) | st.integers(2**31, 2**64 - 1), st.binary(max_size=20))
def test_bytes_that_are_no_safetensors_file_are_refused(judge, text, claimed, body):
    with pytest.raises(CorruptWeightsError):
        read_tensors(written(judge.folder, b"!" + text, body, claimed))


@bounded
@given(tensors_of_a_file(), st.integers(0, 9))
def test_a_whole_safetensors_file_is_read_to_the_bit(fuzz, judge, file, spaces):
    header, body = file
    path = written(judge.folder, json.dumps(header).encode() + b" " * spaces, body)
    finite = all(tensor.isfinite().all() for tensor in fuzz.tensors(path.read_bytes()).values())
    assert (read(path, fuzz) is not None) == finite


@bounded
@given(st.data())
def test_a_spoilt_header_is_refused_or_read_as_it_stands(fuzz, judge, data):
    header, body = data.draw(tensors_of_a_file())
    text = json.dumps(data.draw(changed({**header, "__metadata__": {"format": "pt"}}))).encode()
    body = data.draw(st.just(body) | st.just(body[:-1]) | st.just(body + b"x"))
    read(written(judge.folder, text, body), fuzz)


@bounded
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | VALUES.map(lambda v: json.dumps(v).encode()))
def test_json_is_read_as_python_does_or_refused(judge, text):
    path = judge.folder / "any.json"
    path.write_bytes(text)
    try:
        content = hub.read_json(path)
    except CorruptWeightsError:
        return
    assert content == json.loads(text)
    assert json.loads(json.dumps(content, allow_nan=False)) == content


@bounded
@pytest.mark.parametrize(("cls", "file"), [(ModelConfig, hub.CONFIG), (Preprocessor, hub.PREPROCESSOR)])
@given(data=st.data())
def test_a_config_is_refused_by_name_or_holds_what_was_said(fuzz, judge, data, cls, file):
    tree = json.loads(judge.folders["csvae"][file])
    tree = hub.upgraded(tree) if cls is ModelConfig else tree
    whole, said = from_dict(cls, tree), data.draw(changed(tree))
    try:
        config = from_dict(cls, said)
    except ConfigError as error:
        refused(error, file)
        return
    assert fuzz._agrees(said, to_dict(config))
    assert of_the_same_kinds(to_dict(config), to_dict(whole))
    assert from_dict(cls, to_dict(config)) == config


@bounded
@given(st.sampled_from(("csvae", "csvae-float16", "csvae-vectors", "vae", "cond-vae")), st.data())
def test_a_folder_is_refused_by_name_or_gives_the_model_that_it_says(judge, fuzz, base, data):
    files = dict(judge.folders[base])
    header, body = fuzz.parts(files[hub.WEIGHTS])
    if data.draw(st.booleans()):
        files[hub.CONFIG] = json.dumps(data.draw(changed(json.loads(files[hub.CONFIG])))).encode()
    else:
        text = json.dumps(data.draw(changed(header))).encode()
        files[hub.WEIGHTS] = len(text).to_bytes(8, "little") + text + body
    assume(files != judge.folders[base])
    for name, content in files.items():
        (judge.folder / name).write_bytes(content)
    try:
        model = fuzz.load(judge.folder)
    except (WeightsError, ConfigError) as error:
        refused(error, judge.folder)
    else:
        assert judge.check(model, base, files)[1] == ""
