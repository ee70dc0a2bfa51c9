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
from csvae_hub.tensor_file import BLOCK, HUGE, MAX_HEADER, TensorFile

STATE = {"b.weight": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3), "half": torch.ones(4).half()}


@pytest.fixture
def path(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def write(path, header, data=b""):
    """A file with this header, which may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_names_shapes_and_types_are_known_before_a_number_is_read(path):
    file = TensorFile(path)
    assert file.shapes == {"b.weight": (2, 3), "a": (), "half": (4,)}
    assert file.dtypes == {name: tensor.dtype for name, tensor in STATE.items()}
    assert file.numbers == 11


def test_tensors_are_read_by_name_in_the_type_asked_for(path):
    file = TensorFile(path)
    stored = file.read(STATE)
    wide = file.read(STATE, dtypes={**file.dtypes, "half": torch.float64})
    assert all(torch.equal(stored[name], tensor) for name, tensor in STATE.items())
    assert {name: tensor.dtype for name, tensor in stored.items()} == file.dtypes
    assert torch.equal(wide["half"], torch.ones(4).double())
    path.write_bytes(b"x" * path.stat().st_size)
    for read in (stored, wide):
        assert torch.equal(read["b.weight"], STATE["b.weight"])


@pytest.mark.parametrize(
    "state", [{"b.weight": torch.ones(9)}, {"c": torch.ones(1)}, {**STATE, "b.weight": torch.ones(3, 2)}, None]
)
def test_a_file_that_is_replaced_meanwhile_is_named(path, state):
    file = TensorFile(path)
    path.unlink()
    if state is not None:
        save_file(state, path)
    with pytest.raises(CorruptWeightsError, match="is truncated or corrupt"):
        file.read(["b.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_file_that_is_cut_off_while_it_is_read_is_named(path, monkeypatch, dtype):
    save_file({"a": torch.ones(4, dtype=dtype), "b": torch.ones(99_999, dtype=dtype)}, path)
    size = path.stat().st_size
    monkeypatch.setattr("csvae_hub.tensor_file._finite", lambda tensor: os.truncate(path, size - 1) is None)
    with pytest.raises(CorruptWeightsError, match=rf"got {size} bytes \(it is cut off\)"):
        TensorFile(path).read(["a", "b"], dtypes={"a": torch.float32, "b": torch.float32})


# -- blocks and memory ------------------------------------------------------------------------------------------------

SIZES = {"one": 1, "none": 0, "block": BLOCK // 2, "more": BLOCK // 2 + 3, "large": 5 * BLOCK + 7}


def many(dtype):
    """Tensors of a block, of none and of more, in a file of which every number is known."""
    torch.manual_seed(0)
    floats = {name: torch.randn(size).to(dtype) for name, size in SIZES.items()}
    return {**floats, "whole": torch.arange(2 * BLOCK), "yes": torch.tensor([True, False]), "scalar": torch.ones(())}


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("asked", [None, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_blocks_and_types_give_what_torch_gives(tmp_path, monkeypatch, stored, asked, platform):
    state = many(stored)
    save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setattr("sys.platform", platform)
    file = TensorFile(tmp_path / "model.safetensors")
    dtypes = {k: (asked or v.dtype) if v.is_floating_point() else v.dtype for k, v in state.items()}
    read = file.read(reversed(state), dtypes=dtypes)
    assert list(read) == list(reversed(state))
    for name, tensor in state.items():
        assert read[name].dtype == dtypes[name]
        assert torch.equal(read[name], tensor.to(dtypes[name]))
        assert torch.equal(file.read([name])[name], tensor)


def test_a_machine_of_the_other_byte_order_swaps_the_bytes(tmp_path, monkeypatch):
    state = many(torch.float16)
    swapped = {k: v.view(-1).view(torch.uint8).view(-1, v.itemsize).flip(1).flatten().clone() for k, v in state.items()}
    save_file({k: v.clone().flatten() for k, v in state.items()}, tmp_path / "model.safetensors")
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    file = TensorFile(tmp_path / "model.safetensors")
    for name, start in file._starts.items():
        data[start : start + swapped[name].numel()] = swapped[name].numpy().tobytes()
    (tmp_path / "model.safetensors").write_bytes(data)
    monkeypatch.setattr("sys.byteorder", "big")
    read = file.read(state, dtypes={**file.dtypes, "large": torch.float32})
    assert all(torch.equal(read[name], tensor.flatten().to(read[name].dtype)) for name, tensor in state.items())


@pytest.mark.parametrize("advice", [None, 12345])
def test_tensors_in_one_piece_of_memory_are_apart_and_begin_as_torch_s_do(path, monkeypatch, advice):
    if advice is not None:  # a system that has no large pages
        monkeypatch.setattr("mmap.MADV_HUGEPAGE", advice, raising=False)
    state = many(torch.float16)
    save_file(state, path)
    file = TensorFile(path)
    read = file.read(state, dtypes={**file.dtypes, **dict.fromkeys(SIZES, torch.float64)})
    assert sum(tensor.nbytes for tensor in read.values()) > 2 * HUGE
    assert not any(tensor.data_ptr() % 64 for tensor in read.values())
    for name in read:
        before = {other: tensor.clone() for other, tensor in read.items() if other != name}
        read[name].fill_(1)
        assert all(torch.equal(read[other], tensor) for other, tensor in before.items())


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says how much memory a process used at most")
@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
def test_numbers_are_in_memory_once(path, stored):
    state = {"a": torch.ones(10_000_000, dtype=stored), "b": torch.ones(1000, dtype=stored)}
    save_file(state, path)
    file = TensorFile(path)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    before = resident("VmRSS")
    read = file.read(state, dtypes=dict.fromkeys(state, torch.float32))
    assert resident("VmHWM") - before < 1.15 * sum(tensor.nbytes for tensor in read.values())


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
        TensorFile(path)
    assert str(caught.value).startswith(
        f"{path} is truncated or corrupt: expected a whole safetensors file, got {path.stat().st_size} bytes ("
    )


@pytest.mark.parametrize("length", [9, 2**31, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}      ")
    with pytest.raises(CorruptWeightsError, match="the list of its tensors is cut off"):
        TensorFile(path)


def test_a_header_is_bounded_whatever_the_file_s_size(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((MAX_HEADER + 1).to_bytes(8, "little"))
        file.truncate(8 + 2 * MAX_HEADER)
    with pytest.raises(CorruptWeightsError, match=f"takes {MAX_HEADER + 1} bytes, more than {MAX_HEADER}"):
        TensorFile(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_found_in_every_type(tmp_path, dtype, value):
    tensor = torch.zeros(100_003, dtype=dtype)
    tensor[77_777] = value
    save_file({"a": tensor}, tmp_path / "model.safetensors")
    with pytest.raises(NonFiniteWeightsError, match="in 'a': expected finite numbers"):
        TensorFile(tmp_path / "model.safetensors").read(["a"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_numbers_are_finite_though_their_sum_is_not(tmp_path, dtype):
    save_file({"a": torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)}, tmp_path / "model.safetensors")
    assert TensorFile(tmp_path / "model.safetensors").read(["a"])["a"].isfinite().all()
