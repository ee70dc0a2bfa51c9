"""Networks that read attributes from pictures, in two unlike architectures: the judges of edits."""

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
GROUPS = 4  # of the group norm; the width of a resnet is a multiple of it
_ALIKE = 8  # pictures that share one random augmentation: each picture its own would cost more than the network


class AttributeClassifier(nn.Module):
    """Images (B, C, H, W) in [0, 1] to logits (B, k); pictures of another side than `size` are resized to it.

    The last feature map is pooled to 4×4 and read by one linear layer, since in aligned faces the place matters. The
    logits have the order of `attributes`; the first stage has `width` channels, and each stage `depth` blocks.

    Raises:
        ValueError: no attribute, an architecture that isn't of `ARCHITECTURES`, or a size that isn't a multiple of 8.
    """

    def __init__(
        self,
        attributes: Sequence[str],
        *,
        architecture: str = "resnet",
        width: int = 24,
        depth: int = 1,
        size: int = 64,
        channels: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if not attributes:
            raise ValueError("expected at least one attribute, got none: name the attributes to be read")
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture: expected one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
        if min(width, depth, channels) < 1:
            raise ValueError(f"expected width, depth and channels ≥ 1, got {width}, {depth}, {channels}")
        if size < 8 or size % 8:
            raise ValueError(f"size: expected a multiple of 8 pixels, got {size}")
        self.attributes, self.architecture = tuple(attributes), architecture
        self.width, self.depth, self.size, self.channels, self.dropout = width, depth, size, channels, dropout
        self.body, self.num_features = ARCHITECTURES[architecture](channels, width, depth)
        linear = nn.Linear(16 * self.num_features, len(attributes))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(dropout), linear)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, k)."""
        return self.head(self.feature_map(images))

    def feature_map(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to the features (B, `num_features`, size / 8, size / 8) that the head reads.

        Raises:
            ValueError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"expected images of shape (B, {self.channels}, S, S), got {tuple(images.shape)}: "
                f"the classifier was made for {self.channels} channels"
            )
        return self.body((4 * _resized(images, self.size) - 2).contiguous(memory_format=torch.channels_last))

    def read(self, images: Tensor, *, batch_size: int = 256) -> tuple[Tensor, Tensor]:
        """p(present) (N, k) and mean features (N, `num_features`) of images (N, C, H, W) in [0, 1], on the CPU.

        The network is in eval mode meanwhile.
        """
        was_training, device = self.training, next(self.parameters()).device
        self.eval()
        with torch.no_grad():
            maps = [self.feature_map(part.to(device)) for part in images.split(batch_size)]
            found = [(self.head(part).sigmoid().float().cpu(), part.mean((2, 3)).float().cpu()) for part in maps]
        self.train(was_training)
        probabilities, features = zip(*found, strict=True)
        return torch.cat(probabilities), torch.cat(features)

    def probabilities(self, images: Tensor, *, batch_size: int = 256) -> Tensor:
        """p(present) (N, k) of images (N, C, H, W) in [0, 1], on the CPU, in eval mode and without gradients."""
        return self.read(images, batch_size=batch_size)[0]

    def save(self, folder: str | Path) -> None:
        """Writes config.json (sizes and attributes) and model.safetensors, each replaced whole."""
        sizes = {name: getattr(self, name) for name in _SIZES}
        config = {"format_version": FORMAT_VERSION, "model": NAME, "attributes": list(self.attributes), **sizes}
        save_weights(folder, config, self.state_dict())

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
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsMismatchError(
                f"{folder}: config.json and model.safetensors don't make an {NAME}: {error}. Use the files of one model"
            ) from error
        return classifier.eval()


_SIZES = ("architecture", "width", "depth", "size", "channels", "dropout")


class _Halve(nn.Module):
    """Halves a map after a blur with [1 2 1]/4 in both directions, so that no detail is aliased."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2, 1), 2)


class _Preactivated(nn.Module):
    """x + two 3×3 convolutions, each after group norm and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [(nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)) for _ in range(2)]
        self.body = nn.Sequential(*(layer for three in layers for layer in three))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _Depthwise(nn.Module):
    """x + a 7×7 depthwise convolution, layer norm and an MLP at each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.depthwise(x).movedim(1, -1)).movedim(-1, 1)


def _resnet(channels: int, width: int, depth: int) -> tuple[nn.Module, int]:
    """Three stages of pre-activation blocks at a half, a quarter and an eighth of the side."""
    width = GROUPS * math.ceil(width / GROUPS)
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    for stage in range(3):
        layers += [_Halve(), *(_Preactivated(width) for _ in range(depth))]
        if stage < 2:
            layers.append(nn.Conv2d(width, 2 * width, 1))
            width *= 2
    return nn.Sequential(*layers, nn.GroupNorm(GROUPS, width), nn.ReLU()), width


def _convnext(channels: int, width: int, depth: int) -> tuple[nn.Module, int]:
    """Two stages of depthwise blocks at a quarter and an eighth of the side."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, 4),
        *(_Depthwise(width) for _ in range(2 * depth)),
        nn.GroupNorm(1, width),
        nn.Conv2d(width, 2 * width, 2, 2),
        *(_Depthwise(2 * width) for _ in range(2 * depth)),
        nn.GroupNorm(1, 2 * width),
    ), 2 * width


ARCHITECTURES: dict[str, Callable[[int, int, int], tuple[nn.Module, int]]] = {"resnet": _resnet, "convnext": _convnext}
"""Each from channels, width and depth: the network up to the last map, and the map's channels."""


def train_classifier(
    data: AttributeData,
    *,
    epochs: int = 12,
    seed: int = 0,
    architecture: str = "resnet",
    width: int = 24,
    depth: int = 1,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    augment: bool = True,
    precision: str = "float32",
    device: torch.device | str | None = None,
    report: Callable[[int, float], None] | None = None,
) -> AttributeClassifier:
    """Trains on all of `data` by binary cross entropy, missing labels left out; the classifier comes in eval mode.

    AdamW with a warm-up to `learning_rate` and a linear decline to zero. Larger pictures are seen at 64 pixels. The
    caller's random state is kept.

    Args:
        data: pictures and their attributes; an epoch draws by their weights, where there are some.
        augment: flip, shift, scale, turn, recolour, blur and hide parts of the pictures, and add noise.
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
    channels, _, side = data.shape
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        size = min(side, 64) // 8 * 8
        classifier = AttributeClassifier(
            data.attributes, architecture=architecture, width=width, depth=depth, size=size, channels=channels
        )
        classifier.to(device=device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        augmented = _augmentation(size) if augment else nn.Identity()
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=learning_rate, weight_decay=0.05)
        steps = epochs * math.ceil(len(data) / batch_size)
        warmup = max(1, steps // 10)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warmup, max(0.0, steps - step) / max(1, steps - warmup))
        )
        for epoch in range(1, epochs + 1):
            total = 0.0
            for indices in _order(data).split(batch_size):
                images, labels = (part.to(device) for part in data.batch(indices))
                images = torch.cat([augmented(part) for part in _resized(images, size).split(_ALIKE)])
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


def _order(data: AttributeData) -> Tensor:
    """The examples of an epoch in a random order, drawn by their weights where there are some."""
    if data.weights is None:
        return torch.randperm(len(data))
    return torch.multinomial(data.weights, len(data), replacement=True)


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy over the labels that are there, in nats: logits and labels (B, k), NaN = missing."""
    known = ~labels.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def _augmentation(size: int) -> Callable[[Tensor], Tensor]:
    """Strong random changes of pictures (B, C, S, S) in [0, 1]: no fine pattern, tint or place decides alone."""
    from torchvision.transforms import v2

    blur, bilinear = 1.5 * size / 64, v2.InterpolationMode.BILINEAR
    changes = [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine((-8.0, 8.0), (0.08, 0.08), (0.88, 1.12), interpolation=bilinear, fill=0.5),
        v2.ColorJitter(0.3, 0.3, 0.3, 0.04),
        v2.RandomApply([v2.GaussianBlur(7, (0.2 * blur, blur))], 0.5),
        v2.RandomChoice([v2.GaussianNoise(sigma=sigma) for sigma in (0.0, 0.02, 0.05)]),
        v2.RandomErasing(0.5, (0.02, 0.12), value=0.5),
    ]
    return v2.Compose(changes)
