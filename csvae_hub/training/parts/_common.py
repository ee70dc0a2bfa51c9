"""Edits made in training, random changes of pictures, and codes of all training data, for several parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from csvae_hub.distributions import most_likely
from csvae_hub.models import AttributeModel, Latents
from csvae_hub.models.modes import evaluating
from csvae_hub.sharing import gathered, mine, whole
from csvae_hub.training.steps import Examples, Step


@dataclass(frozen=True)
class Edited:
    """One attribute switched in each picture of a batch."""

    latents: Latents
    which: Tensor
    """(B,), the attribute that was switched."""
    wished: Tensor
    """(B, k), the attributes after the edit."""


def sampled_latents(step: Step) -> Latents:
    """The latents of a generative step as they were sampled, with their gradient."""
    out, names = step.out, step.objective.model.attributes
    w = out.z.new_zeros(len(out.z), len(names), 0) if out.w is None else out.w
    return Latents(out.z, w, out.y, names)


def follow_class_means(step: Step) -> None:
    """Moves the running class means of the model towards those of the posteriors' means."""
    latents, q_z, q_w = sampled_latents(step), step.out.q_z, step.out.q_w
    w = latents.w if q_w is None else q_w.mean
    latents = replace(latents, z=gathered(q_z.mean), w=gathered(w), y=gathered(latents.y))
    step.objective.model.update_class_means(latents)


def switch_one_attribute(model: AttributeModel, latents: Latents, donors: float) -> Edited:
    """Switches one attribute of each picture, drawn at random; in an exclusive group another member becomes present.

    A share `donors` of the edits takes over the w_i of another picture of the batch, where one is of the wished class.
    The rest go to the class's mean.
    """
    batch, k = latents.y.shape
    device = latents.z.device
    drawn = mine(torch.randint(k, (whole(batch),)))  # on the host, which is to know how many there are of each
    which, every = drawn.to(device), torch.arange(batch, device=device)
    wished = latents.y.clone()
    wished[every, which] = 1 - wished[every, which]
    for group in map(torch.tensor, model.config.groups):
        rows = torch.isin(which, group.to(device)).nonzero()[:, 0]
        draws = mine(torch.rand(whole(batch), len(group), device=device))
        others = draws[rows] * (latents.y[rows][:, group] < 0.5)
        which[rows] = group.to(device)[others.argmax(1)]
        wished[rows[:, None], group] = 0.0
        wished[rows, which[rows]] = 1.0
    target = replace(latents, y=wished)
    if latents.w.shape[-1]:
        n, all_w, all_y = whole(batch), gathered(latents.w), gathered(latents.y)
        fits = wished[every, which][:, None] == all_y[:, which].T
        donor = (mine(torch.rand(n, n, device=device)) * fits).argmax(1)
        takes_over = (mine(torch.rand(n, device=device)) < donors) & fits.any(1)
        columns = torch.arange(k, device=device)
        to_mean = model.get_buffer("class_means")[columns, wished.round().long()]
        points = torch.where(takes_over[:, None, None], all_w[donor], to_mean)
        target = replace(target, w=points)
    rows = which.argsort()
    parts: list[Latents] = []
    counted = which if model.config.groups else drawn
    for i, group in enumerate(rows.split(torch.bincount(counted, minlength=k).tolist())):
        if len(group):
            parts.append(model.edit_latents(latents[group], model.attributes[i], target[group], None))
    edited = Latents.cat(parts)[rows.argsort()]
    for i in (member for group in model.config.groups for member in group):  # the one that was present is no longer
        ends = (latents.y[:, i] > 0.5) & (wished[:, i] < 0.5)
        goal = replace(edited, y=torch.where(ends[:, None], wished, edited.y))
        if latents.w.shape[-1]:
            absent = model.get_buffer("class_means")[:, 0]
            goal = replace(goal, w=torch.where(ends[:, None, None], absent, edited.w))
        edited = model.edit_latents(edited, model.attributes[i], goal, None)
    return Edited(edited, which, wished)


def disturbance(pictures: Tensor) -> Callable[[Tensor], Tensor]:
    """Draws a change for each of the pictures (B, C, S, S) in [0, 1]; gives a function that makes it, with a gradient.

    All are moved by whole pixels and recoloured a little; some are turned and scaled, seen at half resolution, given
    noise, or covered in part. Then no fine pattern, tint or place decides alone what a network says of a picture that
    another network made for it (for a critic: Zhao et al. 2020, "DiffAugment").
    """
    n, device, size = len(pictures), pictures.device, pictures.shape[-1]

    def uniform(*shape: int) -> Tensor:
        return 2 * mine(torch.rand(whole(n), *shape, device=device)) - 1

    def some(share: float) -> Tensor:
        return mine(torch.rand(whole(n), 1, 1, 1, device=device)) < share

    turned = some(0.3)[:, 0, 0]
    angle, zoom = 0.14 * uniform(1) * turned, 1 + 0.12 * uniform(1) * turned
    x_shift, y_shift = ((0.08 * size * uniform(2)).round() * 2 / size).split(1, 1)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    matrix = torch.cat([cos, -sin, x_shift, sin, cos, y_shift], 1).unflatten(1, (2, 3))
    grid = F.affine_grid(matrix, [n, 1, size, size], align_corners=False)
    brightness, contrast, saturation = 0.15 * uniform(1, 1, 1), 1 + 0.25 * uniform(1, 1, 1), 1 + 0.4 * uniform(1, 1, 1)
    noise = 0.04 * some(0.25) * mine(torch.randn(whole(n), *pictures.shape[1:], device=device))
    coarse = some(0.25).float()
    places, side = torch.arange(size, device=device) / size, 0.12 + 0.05 * uniform(1)
    columns, rows = ((places - 0.5 - 0.5 * uniform(1)).abs() < side for _ in "xy")
    covered = some(0.5) & columns[:, None, None, :] & rows[:, None, :, None]

    def change(images: Tensor) -> Tensor:
        images = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
        half = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
        images = torch.lerp(images, half, coarse) + brightness
        grey = images.mean(1, keepdim=True)
        images = grey + saturation * (images - grey)
        level = images.mean((1, 2, 3), keepdim=True)
        images = level + contrast * (images - level) + noise
        return images.masked_fill(covered, 0.5).contiguous(memory_format=torch.channels_last)

    return change


@torch.no_grad()
def all_codes(model: AttributeModel, examples: Examples) -> tuple[Tensor, Tensor]:
    """The means of z before eraser and flow (N, z_dim), and the attributes (N, k) with gaps filled by q(y | x)."""
    codes: list[Tensor] = []
    attributes: list[Tensor] = []
    with evaluating(model):
        for x, y in examples:
            features = model.backbone.encode(x)
            y = torch.where(y.isnan(), most_likely(model.q_y(features)).to(y), y)
            codes.append(model.q_z.code(features, y)[0])
            attributes.append(y)
    return torch.cat(codes), torch.cat(attributes)
