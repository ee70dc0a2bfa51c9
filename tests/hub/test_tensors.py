"""safetensors files from strangers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from csvae_hub.errors import CorruptWeightsError, NonFiniteWeightsError
from csvae_hub.hub import tensors
from csvae_hub.hub.tensors import MAX_HEADER, TYPES, TensorFile, read_tensors

STATE = {"b.weight": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3), "half": torch.ones(4).half()}


@pytest.fixture
def path(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def write(path, header, data=b""):
    """A file with this header, which may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_tensors_are_read_as_stored_into_memory_of_their_own(path):
    stored = read_tensors(path)
    assert {name: tensor.dtype for name, tensor in stored.items()} == {k: v.dtype for k, v in STATE.items()}
    path.write_bytes(b"x" * path.stat().st_size)
    assert stored.keys() == STATE.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in STATE.items())
    for name in stored:
        before = {other: tensor.clone() for other, tensor in stored.items() if other != name}
        stored[name].fill_(1)
        assert all(torch.equal(stored[other], tensor) for other, tensor in before.items())


@pytest.mark.parametrize("dtype", TYPES.values())
def test_every_type_and_size_is_read_to_the_bit(path, dtype):
    torch.manual_seed(0)
    sizes = {"one": (1,), "none": (0,), "scalar": (), "large": (3, 100_003)}
    state = {name: (torch.rand(size) * 100).to(dtype) for name, size in sizes.items()}
    save_file(state, path)
    read = read_tensors(path)
    for name, tensor in state.items():
        assert read[name].dtype == dtype
        assert torch.equal(read[name], tensor)


@pytest.mark.parametrize("kept", [None, 0, 7, 100, -1])
@pytest.mark.parametrize("late", ["safe_open", "_read"])
def test_a_file_that_is_cut_while_it_is_read_is_named(path, monkeypatch, late, kept):
    size, call = path.stat().st_size, getattr(tensors, late)

    def cut(*arguments, **options):
        data = path.read_bytes()
        if kept is None and late == "safe_open":
            path.unlink()
        else:
            os.truncate(path, len(data[:kept]) if kept is not None else 0)
        return call(*arguments, **options)

    monkeypatch.setattr(tensors, late, cut)
    with pytest.raises(CorruptWeightsError, match=rf"is truncated or corrupt: .* got {size} bytes \("):
        read_tensors(path)


def test_tensors_of_any_layout_and_wider_type_are_filled_part_by_part(path, monkeypatch):
    monkeypatch.setattr(tensors, "PART", 64)
    stored = {"map": torch.randn(3, 5, 4, 4).half(), "row": torch.randn(1000).half()}
    save_file(stored, path)
    filled = {"map": torch.empty(3, 5, 4, 4).to(memory_format=torch.channels_last), "row": torch.empty(1000)}
    assert TensorFile(path).fill(filled) == []
    assert all(torch.equal(filled[name], tensor.float()) for name, tensor in stored.items())
    assert filled["map"].is_contiguous(memory_format=torch.channels_last)


def test_types_too_narrow_for_the_numbers_are_told(path):
    save_file({"wide": torch.tensor([1.0, 70_000.0]), "small": torch.ones(2)}, path)
    assert TensorFile(path).fill({name: torch.empty(2).half() for name in ("wide", "small")}) == ["wide"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says how much memory a process used at most")
@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
def test_numbers_are_in_memory_once(path, stored):
    state = {"a": torch.ones(10_000_000, dtype=stored), "b": torch.ones(1000, dtype=stored)}
    save_file(state, path)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    before = resident("VmRSS")
    read = read_tensors(path)
    assert resident("VmHWM") - before < 1.1 * sum(tensor.nbytes for tensor in read.values())


def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


HEADERS = {
    "no header": b"",
    "no JSON": b"{nothing}",
    "a list": b"[]",
    "an overlap": {"a": ("F32", [1], [0, 4]), "b": ("F32", [1], [0, 4])},
    "a hole": {"a": ("F32", [1], [4, 8])},
    "an end past the file": {"a": ("F32", [99], [0, 396])},
    "a wrong size": {"a": ("F32", [2], [0, 4])},
    "a shape past all memory": {"a": ("F32", [2**62, 2**62], [0, 8])},
    "a negative size": {"a": ("F32", [-1], [0, 8])},
    "a size of text": {"a": ("F32", ["8"], [0, 8])},
    "a type that is none": {"a": ("F33", [2], [0, 8])},
    "a type that no model has": {"a": ("F8_E4M3", [8], [0, 8])},
    "complex numbers": {"a": ("C64", [1], [0, 8])},
    "deep nesting": b"[" * 100_000,
}


@pytest.mark.parametrize("name", list(HEADERS))
def test_a_header_that_lies_is_named(tmp_path, name):
    header = HEADERS[name]
    if isinstance(header, dict):
        header = {k: dict(zip(("dtype", "shape", "data_offsets"), v, strict=True)) for k, v in header.items()}
    path = tmp_path / "model.safetensors"
    write(path, header, bytes(8))
    with pytest.raises(CorruptWeightsError) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(
        f"{path} is truncated or corrupt: expected a whole safetensors file, got {path.stat().st_size} bytes ("
    )


@pytest.mark.parametrize("length", [9, 2**31, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}      ")
    with pytest.raises(CorruptWeightsError, match=rf"\(its header has {length} bytes: expected at most 8\)"):
        read_tensors(path)


def test_a_header_is_bounded_whatever_the_file_s_size(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((MAX_HEADER + 1).to_bytes(8, "little"))
        file.truncate(8 + 2 * MAX_HEADER)
    with pytest.raises(CorruptWeightsError, match=f"header has {MAX_HEADER + 1} bytes: expected at most {MAX_HEADER}"):
        read_tensors(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_found_in_every_type(tmp_path, dtype, value):
    tensor = torch.zeros(100_003, dtype=dtype)
    tensor[77_777] = value
    save_file({"a": tensor}, tmp_path / "model.safetensors")
    with pytest.raises(NonFiniteWeightsError, match="in 'a': expected finite numbers"):
        read_tensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_numbers_are_finite_though_their_sum_is_not(tmp_path, dtype):
    save_file({"a": torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)}, tmp_path / "model.safetensors")
    assert read_tensors(tmp_path / "model.safetensors")["a"].isfinite().all()
