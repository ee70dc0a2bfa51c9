"""The graphs of an exported model, as modules that take tensors and give tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from csvae_hub import onnx
from csvae_hub.config import check
from csvae_hub.errors import ExportError
from csvae_hub.models import AttributeModel, Latents


@dataclass(frozen=True)
class Kind:
    """The part of a graph that differs between the members of the family.

    `beside` is the decoder's input beside z: "w", "y", or "" for none. `moved` gives the latents of an edit by numbers
    (B, k): 0 absent, 1 present, NaN for an attribute that is left as it is.
    """

    beside: str
    moved: Callable[[AttributeModel, Latents, Tensor], Latents]


def in_subspaces(model: AttributeModel, latents: Latents, values: Tensor) -> Latents:
    """Each w_i at the point of the line through the class means."""
    absent, present = model.get_buffer("class_means").unbind(1)
    points = absent + values[..., None] * (present - absent)
    return dataclasses.replace(latents, w=torch.where(values[..., None].isnan(), latents.w, points))


def along_z(model: AttributeModel, latents: Latents, values: Tensor) -> Latents:
    """The code z moved along each attribute's vector, from y_i to the number."""
    absent, present = model.get_buffer("class_means").unbind(1)
    steps = torch.where(values.isnan(), 0.0, values - latents.y)
    return dataclasses.replace(told(model, latents, values), z=latents.z + steps @ (present - absent))


def told(model: AttributeModel, latents: Latents, values: Tensor) -> Latents:
    """Another y_i, which the decoder reads."""
    return dataclasses.replace(latents, y=torch.where(values.isnan(), latents.y, values))


KINDS = {
    "csvae": Kind("w", in_subspaces),
    "vae": Kind("", along_z),
    "cond-vae": Kind("y", told),
    "cond-vae-info": Kind("y", told),
}
"""By `ModelConfig.model`."""


class Encoder(nn.Module):
    """x (B, C, S, S) in [0, 1] to z (B, z_dim), w (B, k, w_dim) where there is one, y and its probabilities (B, k)."""

    def __init__(self, model: AttributeModel) -> None:
        super().__init__()
        self.model, self.has_w = model, kind_of(model).beside == "w"

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The code, then the probabilities."""
        features = self.model.backbone.encode(x)
        code = self.model.posterior_latents(features, None, False, None)
        return (code.z, *([code.w] if self.has_w else []), code.y, self.model.q_y(features).mean)


class Decoder(nn.Module):
    """z (B, z_dim), and w (B, k, w_dim) or y (B, k) beside it, to x (B, C, S, S) in [0, 1]."""

    def __init__(self, model: AttributeModel) -> None:
        super().__init__()
        self.model, self.beside = model, kind_of(model).beside

    def forward(self, z: Tensor, beside: Tensor | None = None) -> Tensor:
        """The mean of p(x | …)."""
        w, y = (beside if self.beside == name else None for name in ("w", "y"))
        return self.model.p_x_given(self.model.latents_of_parts(z, w, y)).mean


class Edit(nn.Module):
    """x (B, C, S, S) in [0, 1] and values (B, k), a number or NaN each, to edited pictures (B, C, S, S) in [0, 1]."""

    def __init__(self, model: AttributeModel) -> None:
        super().__init__()
        self.model, self.moved = model, kind_of(model).moved

    def forward(self, x: Tensor, values: Tensor) -> Tensor:
        """The decoder's mean at the moved latents; the reconstruction, to the bit, where all values are NaN."""
        code = self.model.posterior_latents(self.model.backbone.encode(x), None, False, None)
        return self.model.p_x_given(self.moved(self.model, code, values)).mean


def kind_of(model: AttributeModel) -> Kind:
    """The kind of a model of pictures.

    Raises:
        ConfigError: it is a model of vectors.
        ExportError: it is of no kind that is exported.
    """
    config = model.config
    check(config.is_image, "shape", "(C, H, W), a model of pictures: models of vectors aren't exported", config.shape)
    if config.model not in KINDS:
        raise ExportError(f"model: expected one of {', '.join(KINDS)}, got {config.model!r}, which isn't exported")
    return KINDS[config.model]


def graphs_of(model: AttributeModel) -> dict[str, tuple[nn.Module, onnx.Graph]]:
    """The module of each graph, with the names of its inputs and outputs; errors as `kind_of`."""
    beside = kind_of(model).beside
    decoder_inputs = ("z", *filter(None, [beside]))
    encoder_outputs = ("z", *(["w"] if beside == "w" else []), "y", "probabilities")
    return {
        "encoder": (Encoder(model), onnx.Graph(("x",), encoder_outputs)),
        "decoder": (Decoder(model), onnx.Graph(decoder_inputs, ("x",))),
        "edit": (Edit(model), onnx.Graph(("x", "values"), ("edited",))),
    }
