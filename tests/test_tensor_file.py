"""safetensors files from strangers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from csvae_hub.errors import CorruptWeightsError, NonFiniteWeightsError
from csvae_hub.tensor_file import MAX_HEADER, TensorFile

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


@pytest.mark.parametrize("state", [{"b.weight": torch.ones(9)}, {"c": torch.ones(1)}, None])
def test_a_file_that_is_replaced_meanwhile_is_named(path, state):
    file = TensorFile(path)
    path.unlink()
    if state is not None:
        save_file(state, path)
    with pytest.raises(CorruptWeightsError, match="is truncated or corrupt"):
        file.read(["b.weight"])


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
