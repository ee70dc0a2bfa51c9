"""The formats of exported graphs: a module becomes the bytes of a file, and these a function again."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from csvae_hub.errors import require
from csvae_hub.onnx import Graph

OPSET = 18
"""Of ONNX: the oldest that torch's exporter writes without conversion, so that old runtimes read it."""

Run: TypeAlias = Callable[[tuple[Tensor, ...]], list[Tensor]]
"""A graph: gives the outputs for the inputs, both in order."""


@dataclass(frozen=True)
class Format:
    """A format of files.

    `suffix` ends their names. `needs` are the packages that the extra `export` brings. `write` gives the bytes of a
    module, from inputs to trace it with, its names and the metadata. `read` gives the graph of these bytes.
    """

    suffix: str
    needs: tuple[str, ...]
    write: Callable[[nn.Module, tuple[Tensor, ...], Graph, Mapping[str, str]], bytes]
    read: Callable[[bytes, Graph], Run]


def write_onnx(module: nn.Module, inputs: tuple[Tensor, ...], graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """The bytes of an ONNX model with its weights inside."""
    require("onnxscript", "export")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own parts
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=_batches(inputs),
            verbose=False,
        )
    assert program is not None
    proto: Any = program.model_proto
    for part in (proto.graph, *proto.functions):
        for described in (*part.node, *part.value_info):
            del described.metadata_props[:]  # they name the files of this machine
    del proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


def read_onnx(content: bytes, graph: Graph) -> Run:
    """A graph as onnxruntime computes it on the CPU."""
    onnxruntime = require("onnxruntime", "export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        feed = {name: value.numpy() for name, value in zip(graph.inputs, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(list(graph.outputs), feed)]

    return run


def write_torch(module: nn.Module, inputs: tuple[Tensor, ...], graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a program of `torch.export`, the metadata as its extra file "metadata.json"."""
    program = torch.export.export(module, inputs, dynamic_shapes=_batches(inputs))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the files of this machine
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata, indent=2)})
    return file.getvalue()


def read_torch(content: bytes, graph: Graph) -> Run:
    """A graph as torch computes it on the CPU."""
    program = torch.export.load(io.BytesIO(content)).module()

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        with torch.no_grad():
            outputs = program(*inputs)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    return run


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), write_onnx, read_onnx),
    "torch": Format(".pt2", (), write_torch, read_torch),
}


def _batches(inputs: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    """The first dimension of every input is the batch, of any size."""
    return ({0: torch.export.Dim("batch", max=2**31 - 1)},) * len(inputs)
