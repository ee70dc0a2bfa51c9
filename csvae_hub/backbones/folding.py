"""Batch norm folded into the convolution before it, where a module is at rest: in eval mode, without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fold:
    """A 3×3 convolution without bias and the batch norm behind it as the weight and bias of one convolution.

    weight' = γ weight / √(σ² + ε) of each output channel, bias' = β - γ μ / √(σ² + ε): equal up to rounding. Kept
    beside the module's own tensors, which stay as they are, and made anew when one of these has changed. (A write
    through `.data` is not seen before the next call in training mode or with gradients.) Kept channels-last, else a
    CPU would bring the weight into that order on each call. Copies and pickles hold nothing.

    With `upsample` the convolution, 3×3 of stride 1, is of x doubled in size. On a CPU both are then one transposed
    convolution of x, 4×4 of stride 2: each of its results needs 4 products of each channel in place of 9.
    """

    def __init__(self, upsample: bool = False) -> None:
        self.upsample = upsample
        self._made: tuple[list[tuple[Tensor, int]], tuple[Tensor, Tensor]] | None = None

    def __reduce__(self) -> tuple[type[Fold], tuple[bool]]:
        return Fold, (self.upsample,)

    def __call__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor | None:
        """The norm of the convolution of x (B, C, H, W); None where x is not at rest, or traced."""
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        sources = (conv.weight, norm.weight, norm.bias, mean, variance)
        if norm.training or not _at_rest(x, sources):
            self._made = None
            return None
        transposed = self.upsample and x.device.type == "cpu"
        if self._made is None or not all(map(_is_same, sources, self._made[0])):
            # views hold the storages, so that no later tensor can lie at the address of one of these
            self._made = [(one.detach(), one._version) for one in sources], _folded(*sources, norm.eps, transposed)
        if transposed:
            return F.conv_transpose2d(x, *self._made[1], 2, 1)
        return F.conv2d(doubled(x) if self.upsample else x, *self._made[1], conv.stride, 1)


def doubled(x: Tensor) -> Tensor:
    """A map (B, C, H, W) of twice the side: each value four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _at_rest(x: Tensor, sources: Sequence[Tensor]) -> bool:
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor:
        return False
    plain = x.dtype in (torch.float32, torch.float64) or torch.is_autocast_enabled(x.device.type)
    return plain and not any(one.is_inference() for one in sources)  # inference tensors count no changes


def _is_same(source: Tensor, before: tuple[Tensor, int]) -> bool:
    seen, version = before
    return source._version == version and source.data_ptr() == seen.data_ptr() and source.dtype == seen.dtype


@torch.inference_mode(mode=False)
@torch.no_grad()
def _folded(
    weight: Tensor, gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, transposed: bool
) -> tuple[Tensor, Tensor]:
    scale = gain * (variance + eps).rsqrt()
    folded = weight * scale[:, None, None, None]
    if transposed:  # (outputs, inputs, 3, 3) to (inputs, outputs, 4, 4): the sums over the places of one value of x
        folded = 4 * F.avg_pool2d(F.pad(folded, (1, 1, 1, 1)), 2, 1).flip(2, 3).transpose(0, 1)
    folded = folded.contiguous(memory_format=torch.channels_last)
    return folded, torch.addcmul(bias, mean, scale, value=-1)
