"""Figures: edits against leakage, the planes of the subspaces, a face over such a plane.

All give a `matplotlib.figure.Figure` made without pyplot: no window opens and no global state changes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from csvae_hub import hub
from csvae_hub.errors import require
from csvae_hub.models import AttributeModel, Latents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Range: TypeAlias = tuple[float, float]
PRESENT, ABSENT, UNKNOWN = "tab:blue", "tab:orange", "lightgrey"
"""Colours that also differ to the colour-blind."""


def edits_against_leakage(
    results: Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]], probe: str = "mlp"
) -> Figure:
    """A point for each model and seed: edits taken for the wished class (up) against leakage from z (right).

    The results are by the models' names what `evaluate` gave, or several such results, over seeds. Of the probe, "mlp"
    or "logistic", the greatest ROC AUC over the attributes is drawn.

    Raises:
        ValueError: no result, an unknown probe, or a result without wished edits or leakage.
        MissingExtraError: matplotlib is missing.
    """
    if not results or probe not in ("mlp", "logistic"):
        raise ValueError(
            f"expected at least one result and the probe mlp or logistic, got {len(results)} and {probe!r}"
        )
    figure = _figure(5, 4)
    axes = figure.subplots()
    for name, found in results.items():
        runs = [found] if isinstance(found, Mapping) else found
        points = [(run["leakage"]["z"][probe]["max"], (run["attribute_change"] or {}).get("wished")) for run in runs]
        if not points or any(value is None for point in points for value in point):
            raise ValueError(
                f"{name}: expected the share of wished edits and the leakage, got a result without: evaluate a model "
                "of images with a judge that reads its attributes"
            )
        leaks, wished = zip(*points, strict=True)
        axes.scatter(leaks, [100 * rate for rate in wished], label=name)
    axes.axvline(0.5, color=UNKNOWN, zorder=0)
    kind = "an MLP" if probe == "mlp" else "a logistic"
    axes.set(
        xlim=(min(0.45, axes.get_xlim()[0]), 1.02),
        ylim=(-2, 102),
        xlabel=f"greatest ROC AUC of {kind} probe on z (0.5: nothing leaks)",
        ylabel="edits taken for the wished class (%)",
    )
    axes.legend()
    return figure


def subspace_planes(
    latents: Latents, labels: NDArray[np.float32], names: Sequence[str] | None = None, *, most: int = 2000
) -> Figure:
    """The plane of each W_i with the points of test examples: a row for each i, a column for each colouring attribute.

    A subspace of more than two numbers is shown on one plane in it: along the line from the mean of the examples
    without the attribute to that of the others, and along the greatest spread across it. On the diagonal, framed, the
    points are coloured by the attribute of the plane itself: blue where present, orange where absent, grey where the
    label is missing. Elsewhere the two colours should lie alike.

    w has the shape (N, k, 2) or more; the labels (N, k) are 0, 1 or NaN, in the order of `latents.attributes`. `names`
    are the rows and columns, by default all; the first `most` points are drawn.

    Raises:
        ValueError: subspaces of fewer than two numbers, or labels of another shape.
        UnknownAttributeError: a name that the latents lack.
        MissingExtraError: matplotlib is missing.
    """
    _check_planes(latents.w.shape[-1])
    if labels.shape != tuple(latents.y.shape):
        raise ValueError(f"labels: expected shape {tuple(latents.y.shape)}, one row a latent, got {labels.shape}")
    names = latents.attributes if names is None else names
    columns = [latents.index(name) for name in names]
    side = 1.5 * len(columns) + 0.8
    figure = _figure(side, side)
    figure.suptitle("blue: present, orange: absent", fontsize=8)
    panels = figure.subplots(len(columns), len(columns), squeeze=False, sharex="row", sharey="row")
    for row, i in zip(panels, columns, strict=True):
        w = latents.w[:, i].float().cpu()
        points = (w[:most] @ plane(w, latents.y[:, i].cpu()).T).numpy()
        for axes, j in zip(row, columns, strict=True):
            colours = [UNKNOWN if np.isnan(label) else PRESENT if label else ABSENT for label in labels[:most, j]]
            axes.scatter(*points.T, c=colours, s=2, linewidths=0)
            axes.tick_params(labelsize=6)
            for spine in axes.spines.values():
                spine.set_linewidth(2.0 if i == j else 0.5)
    for name, top, left in zip(names, panels[0], panels[:, 0], strict=True):
        top.set_title(f"by {name}", fontsize=8)
        left.set_ylabel(f"W of {name}", fontsize=8)
    return figure


@torch.no_grad()
def traversal(
    model: AttributeModel,
    picture: Any,
    name: str,
    *,
    steps: int = 7,
    extent: tuple[Range, Range] | None = None,
    examples: Latents | None = None,
) -> Figure:
    """One picture decoded over a grid of points of W_i: a continuous family of glasses or beards.

    Args:
        model: a model of images with subspaces of two numbers or more.
        picture: one picture, of any kind that `model.encode` takes, or its `Latents`.
        name: the attribute.
        steps: pictures a side, at least 2.
        extent: from where to where each of the two coordinates goes; the default is the square around the middle of the
            points that stand for absent and for present, twice as wide as these are apart.
        examples: latents of many pictures, by which a subspace of more than two numbers gets its plane, as in
            `subspace_planes`. The plane goes through the picture's point of the class "absent".

    Raises:
        ValueError: a model of vectors or without planes, a subspace of more than two numbers without examples, more
            than one picture, fewer than 2 steps, or an empty extent.
        UnknownAttributeError: the model has no such attribute.
        MissingExtraError: matplotlib is missing.
    """
    index = model.index(name)
    if not model.config.is_image or steps < 2:
        raise ValueError(
            f"expected a model of images and at least 2 steps, got shape {model.config.shape} and {steps} steps"
        )
    latents = picture if isinstance(picture, Latents) else model.encode(picture)
    _check_planes(latents.w.shape[-1])
    if len(latents) != 1:
        raise ValueError(f"expected one picture, got {len(latents)}: draw a figure for each")
    ends = torch.stack([model.edit(latents, {name: value}).w[0, index].float().cpu() for value in (0.0, 1.0)])
    if ends.shape[1] > 2 and examples is None:
        raise ValueError(f"expected subspaces of two numbers or examples, got {ends.shape[1]}: give examples")
    shown = examples or latents
    axes_of_w = plane(shown.w[:, index].float().cpu(), shown.y[:, index].cpu())
    origin = ends[0] - ends[0] @ axes_of_w.T @ axes_of_w
    absent, present = (ends @ axes_of_w.T).tolist()
    across, up = extent or square_of(absent, present)
    if not (across[0] < across[1] and up[0] < up[1]):
        raise ValueError(f"extent: expected two ranges from a lower to a higher number, got {extent}")
    line = functools.partial(torch.linspace, steps=steps, device="cpu", dtype=torch.float32)
    second, first = torch.meshgrid(line(up[1], up[0]), line(*across), indexing="ij")
    pictures = _grid(model, latents, name, origin + torch.stack([first, second], -1) @ axes_of_w)
    figure = _figure(1 + 0.7 * steps, 1 + 0.7 * steps)
    axes = figure.subplots()
    margins = [(end - start) / (steps - 1) / 2 for start, end in (across, up)]
    edges = (across[0] - margins[0], across[1] + margins[0], up[0] - margins[1], up[1] + margins[1])
    axes.imshow(pictures.numpy(), extent=edges, aspect="auto", interpolation="bicubic")
    for words, (x, y), colour in (("absent", absent, ABSENT), ("present", present, PRESENT)):
        if edges[0] <= x <= edges[1] and edges[2] <= y <= edges[3]:
            axes.plot(x, y, "o", color=colour, markeredgecolor="white", markersize=7)
            box = {"boxstyle": "round,pad=0.15", "facecolor": "#00000080", "edgecolor": "none"}
            place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(words, (x, y), color="white", fontsize=7, bbox=box, **place)
    flat = ends.shape[1] == 2
    xlabel = "first coordinate of w_i" if flat else "w_i from absent to present"
    ylabel = "second coordinate of w_i" if flat else "w_i along its greatest spread across"
    axes.set(title=name, xlabel=xlabel, ylabel=ylabel, xlim=edges[:2], ylim=edges[2:])
    return figure


def square_of(absent: Sequence[float], present: Sequence[float]) -> list[Range]:
    """From where to where each coordinate goes in the plane that `traversal` draws by itself.

    The square around the middle of the points that stand for absent and for present, twice as wide as these are apart.
    """
    reach = max(math.dist(absent, present), 1e-3)
    return [((a + p) / 2 - reach, (a + p) / 2 + reach) for a, p in zip(absent, present, strict=True)]


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 100) -> None:
    """Writes a figure as the kind of file that the name ends in, such as .png or .svg, replaced whole."""
    path = Path(path)
    with hub.replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix(".") or "png", dpi=dpi)


def plane(w: Tensor, y: Tensor) -> Tensor:
    """Two axes (2, w_dim), orthonormal, of the plane that shows the points w (N, w_dim) of attribute y (N,) best.

    The coordinates themselves where there are two. Otherwise the direction from the mean of the points without the
    attribute to that of those with it (where one class is missing, the greatest spread), and the greatest spread
    across.
    """
    if w.shape[1] == 2:
        return torch.eye(2)
    centred = w - w.mean(0)
    first = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    if 0 < int((y > 0.5).sum()) < len(y):
        between = w[y > 0.5].mean(0) - w[y <= 0.5].mean(0)
        first = between / between.norm() if between.norm() > 1e-6 else first
    across = centred - (centred @ first)[:, None] * first
    second = torch.linalg.svd(across, full_matrices=False).Vh[0]
    second = second - (second @ first) * first
    return torch.stack([first, second / second.norm()])


def _check_planes(w_dim: int) -> None:
    if w_dim == 0:
        raise ValueError(
            "expected subspaces of two numbers, got a model without subspaces, which has no planes: use a CSVAE"
        )
    if w_dim < 2:
        raise ValueError(f"expected subspaces of two numbers or more, got {w_dim}: train with w_dim = 2")


def _grid(model: AttributeModel, latents: Latents, name: str, points_of_w: Tensor) -> Tensor:
    """Pictures of all points (rows, columns, w_dim) as one, float32 (rows · S, columns · S, 3)."""
    edits = (model.edit(Latents.cat([latents] * len(w)), {name: w}) for w in points_of_w.flatten(0, 1).split(64))
    pictures = torch.cat([model.decode(edit).float().cpu() for edit in edits]).expand(-1, 3, -1, -1)
    return rearrange(pictures, "(rows columns) c h w -> (rows h) (columns w) c", rows=len(points_of_w))


def _figure(width: float, height: float) -> Figure:
    return require("matplotlib.figure", "plot").Figure(figsize=(width, height), layout="constrained")
