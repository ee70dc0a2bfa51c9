"""A small residual network that reads attributes from pictures: the judge of edits, or the guide of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from csvae_hub.config import FORMAT_VERSION
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import WeightsMismatchError
from csvae_hub.hub import load_weights, save_weights

NAME = "attribute-classifier"


class AttributeClassifier(nn.Module):
    """Images (B, C, S, S) in [0, 1] to logits (B, k), S a multiple of 16.

    A stem that halves the picture, then three stages of `depth` residual blocks (batch norm) of `width`, 2 `width`
    and 4 `width` channels, each stage halving again; the last map is pooled to 4×4 and read by one linear layer,
    since in aligned faces the place matters. `metrics` is what `classifier_metrics` measured, or empty; it travels with
    the weights.

    Args:
        attributes: the k names, in the order of the logits.
        width: channels of the stem and of the first stage.
        depth: residual blocks a stage.
        channels: of the pictures.
        dropout: before the linear layer.

    Raises:
        ValueError: no attribute, or a size below one.
    """

    def __init__(
        self,
        attributes: Sequence[str],
        *,
        width: int = 32,
        depth: int = 1,
        channels: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if not attributes:
            raise ValueError("expected at least one attribute, got none: name the attributes to be read")
        if min(width, depth, channels) < 1:
            raise ValueError(f"expected width, depth and channels ≥ 1, got {width}, {depth}, {channels}")
        self.attributes = tuple(attributes)
        self.width, self.depth, self.channels, self.dropout = width, depth, channels, dropout
        self.metrics: dict[str, dict[str, float | None]] = {}
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
        ]
        before = width
        for factor in (1, 2, 4):
            for block in range(depth):
                layers.append(_Block(before, factor * width, stride=2 if block == 0 else 1))
                before = factor * width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16 * before, len(self.attributes))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, S, S) in [0, 1] to logits (B, k).

        Raises:
            ValueError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"expected images of shape (B, {self.channels}, S, S), got {tuple(images.shape)}: "
                f"the classifier was made for {self.channels} channels"
            )
        images = images.contiguous(memory_format=torch.channels_last)
        return self.head(self.features(4 * images - 2))

    def probabilities(self, images: Tensor, *, batch_size: int = 256) -> Tensor:
        """Images (N, C, S, S) in [0, 1] to p(present) (N, k), on the CPU, in eval mode and without gradients."""
        was_training = self.training
        self.eval()
        device = next(self.parameters()).device
        with torch.no_grad():
            parts = [self(part.to(device)).sigmoid().float().cpu() for part in images.split(batch_size)]
        self.train(was_training)
        return torch.cat(parts)

    def save(self, folder: str | Path) -> None:
        """Writes config.json (sizes, attributes, metrics) and model.safetensors, each replaced whole.

        Raises:
            WeightsError: the folder's name is taken by a file.
        """
        sizes = {name: getattr(self, name) for name in _SIZES}
        config = {"model": NAME, "attributes": list(self.attributes), **sizes, "metrics": self.metrics}
        save_weights(folder, {"format_version": FORMAT_VERSION, **config}, self.state_dict())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads what `save` wrote, in eval mode on the CPU.

        Raises:
            WeightsError: a file is missing or corrupt, or the weights are of something else.
        """
        config, state = load_weights(folder)
        if config.get("model") != NAME:
            raise WeightsMismatchError(
                f"{folder}: expected the weights of an {NAME}, got model {config.get('model')!r}: use a folder that "
                "AttributeClassifier.save wrote"
            )
        try:
            classifier = cls(config["attributes"], **{name: config[name] for name in _SIZES})
            classifier.load_state_dict(state)
            classifier.metrics = config["metrics"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsMismatchError(
                f"{folder}: config.json and model.safetensors don't make an {NAME}: {error}. Use the files of one model"
            ) from error
        return classifier.eval()


_SIZES = ("width", "depth", "channels", "dropout")


class _Block(nn.Module):
    """Two 3×3 convolutions with batch norm, added to the (pooled, projected) input."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        shortcut: list[nn.Module] = [nn.AvgPool2d(stride)] if stride > 1 else []
        if before != after:
            shortcut.append(nn.Conv2d(before, after, 1, bias=False))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def train_classifier(
    data: AttributeData,
    *,
    epochs: int = 12,
    seed: int = 0,
    width: int = 32,
    depth: int = 1,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    augment: bool = True,
    precision: str = "float32",
    device: torch.device | str | None = None,
    report: Callable[[int, float], None] | None = None,
) -> AttributeClassifier:
    """Trains on all of `data` by binary cross entropy, missing labels left out; the classifier comes in eval mode.

    AdamW with one warm-up and a linear decline to zero. The caller's random state is kept.

    Args:
        data: N ≥ 1 pictures and their attributes.
        epochs: passes over the data.
        seed: of weights, order and augmentation.
        width: see `AttributeClassifier`.
        depth: see `AttributeClassifier`.
        batch_size: in pictures.
        learning_rate: the greatest.
        augment: flip, shift, scale and lighten the pictures, and blur some, since edits are softer than photos.
        precision: "float32" or "bfloat16" (autocast).
        device: by default CUDA where there is one, else the CPU; the classifier stays there.
        report: is called after each epoch with its number, from 1, and mean loss in nats.

    Raises:
        ValueError: empty data, data that isn't pictures, or an unknown precision.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision: expected 'float32' or 'bfloat16', got {precision!r}")
    if len(data) == 0 or data.images.ndim != 4:
        raise ValueError(
            f"data: expected pictures (N, C, S, S) with N ≥ 1 to train a classifier, got {data.images.shape}"
        )
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        classifier = AttributeClassifier(data.attributes, width=width, depth=depth, channels=data.images.shape[1])
        classifier.to(device=device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=learning_rate, weight_decay=0.05)
        steps = epochs * math.ceil(len(data) / batch_size)
        warmup = max(1, steps // 10)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warmup, max(0.0, steps - step) / max(1, steps - warmup))
        )
        for epoch in range(1, epochs + 1):
            total = 0.0
            for indices in torch.randperm(len(data)).split(batch_size):
                images, labels = (part.to(device) for part in data.batch(indices))
                if augment:
                    images = _augment(images)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    logits = classifier(images)
                loss = masked_cross_entropy(logits.float(), labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(indices)
            if report is not None:
                report(epoch, total / len(data))
    return classifier.eval()


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy over the labels that are there, in nats: logits and labels (B, k), NaN = missing."""
    known = ~labels.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def _augment(images: Tensor) -> Tensor:
    """Random flip, shift (± 4 %), scale (± 6 %), light, contrast, noise, and a blur for a third of the pictures."""
    count, size = images.shape[0], images.shape[-1]
    scale = 1 + 0.12 * (torch.rand(count) - 0.5)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = scale * (1 - 2 * torch.randint(2, (count,)))
    theta[:, 1, 1] = scale
    theta[:, :, 2] = 0.16 * (torch.rand(count, 2) - 0.5)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    blurred = F.interpolate(F.avg_pool2d(images, 2), size=(size, size), mode="bilinear", align_corners=False)
    column = (count, 1, 1, 1)
    images = torch.where(torch.rand(column).to(images.device) < 1 / 3, blurred, images)
    contrast, light = 0.8 + 0.4 * torch.rand(column), 0.16 * (torch.rand(column) - 0.5)
    noise = 0.02 * torch.rand(column).to(images.device) * torch.randn_like(images)
    return ((images - 0.5) * contrast.to(images.device) + 0.5 + light.to(images.device) + noise).clamp(0, 1)
