"""Writes a model as graphs that run without csvae-hub: ONNX, or programs of `torch.export`."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from csvae_hub import hub
from csvae_hub.config import to_dict
from csvae_hub.errors import ExportError, MissingExtraError, WeightsError, did_you_mean, require
from csvae_hub.export.formats import FORMATS
from csvae_hub.export.graphs import graphs_of, kind_of
from csvae_hub.export.parity import difference, examples
from csvae_hub.models import AttributeModel
from csvae_hub.onnx import FORMAT_VERSION, Description, Graph

__all__ = ["Exported", "export_model"]


@dataclass(frozen=True)
class Exported:
    """The files that were written, and for each graph the largest difference between its outputs and the model's."""

    files: tuple[Path, ...]
    differences: dict[str, float]


def export_model(
    model: str | Path | AttributeModel,
    folder: str | Path,
    *,
    format: str = "onnx",
    license: Mapping[str, str] | None = None,
) -> Exported:
    """Writes encoder, decoder and edit of a model of pictures as graphs, in float32 for any size of the batch.

    The graphs are compared with the model, on random pictures and on some that it draws, before anything is written.
    Beside them onnx.json (or torch.json) describes them; it is written last.

    Args:
        model: a model, or a name as `from_pretrained` takes it.
        folder: made if it is missing; each file is replaced whole.
        format: "onnx" for encoder.onnx, …, or "torch" for programs of `torch.export`, encoder.pt2, …
        license: of the weights: `license`, `license_name`, `license_link`. Default: the card's of a model that is
            given by its name, else none.

    Raises:
        MissingExtraError: the extra `export` is not installed.
        ConfigError: a model of vectors.
        ExportError: a model of another kind, or a graph that does not compute what the model does.
        WeightsError: the model can't be loaded, or a file has the folder's name.
        CardError: the model's card can't be read.
        ValueError: an unknown format.
    """
    if format not in FORMATS:
        near = did_you_mean(format, FORMATS)
        raise ValueError(
            f"format: expected {' or '.join(map(repr, FORMATS))}, got {format!r}{':' if near else ''}{near}"
        )
    chosen, target = FORMATS[format], Path(folder)
    for module in chosen.needs:
        require(module, "export")
    if target.exists() and not target.is_dir():
        raise WeightsError(f"{target} is a file: expected the name of a folder to write the graphs to")
    if not isinstance(model, AttributeModel):
        license = _licence(model) if license is None else license
        model = AttributeModel.from_pretrained(model, device="cpu")
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    model.adversary_net = None  # only training asks it
    graphs = graphs_of(model)
    signatures = {name: graph for name, (_, graph) in graphs.items()}
    description = _described(model, signatures, license or {})
    contents: dict[str, bytes] = {}
    differences: dict[str, float] = {}
    with torch.no_grad():
        batches = examples(model)
        for name, (module, graph) in graphs.items():
            inputs = [tuple(batch[its] for its in graph.inputs) for batch in batches]
            try:
                content = chosen.write(module.eval(), inputs[0], graph, description.metadata())
            except MissingExtraError:
                raise
            except Exception as error:  # torch's exporters raise anything
                reason = str(error.__cause__ or error).strip().partition("\n")[0][:200]
                raise ExportError(
                    f"{name}: expected a graph that torch can export, got {reason}. Update torch and"
                    " onnxscript; a backbone of your own must not read the numbers of a tensor as Python's"
                ) from error
            differences[name] = difference(name, module, chosen.read(content, graph), inputs)
            contents[f"{name}{chosen.suffix}"] = content
    target.mkdir(parents=True, exist_ok=True)
    last = target / f"{format}.json"
    with ExitStack() as stack:  # left in reverse: the description is replaced last
        hub.write_json(stack.enter_context(hub.replacing(last)), to_dict(description))
        for name, content in contents.items():
            stack.enter_context(hub.replacing(target / name)).write_bytes(content)
    return Exported((*(target / name for name in contents), last), differences)


def _licence(name: str | Path) -> dict[str, str]:
    from csvae_hub.hub.card import licence_of

    return licence_of(hub.resolve(name))


def _described(model: AttributeModel, graphs: dict[str, Graph], license: Mapping[str, str]) -> Description:
    from csvae_hub import __version__

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    config = model.config
    channels, height, width = config.shape
    means = model.get_buffer("class_means").tolist() if kind_of(model).beside == "w" else []
    return Description(
        FORMAT_VERSION,
        __version__,
        config.model,
        config.attributes,
        config.exclusive,
        (channels, height, width),
        model.preprocessor,
        dict(license),
        digest.hexdigest(),
        graphs,
        tuple((tuple(absent), tuple(present)) for absent, present in means),
    )
