"""Variety inside an attribute: the kinds of glasses that a model can draw on one face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation.encoding import BATCH, decode_all, edited, encode_data
from csvae_hub.evaluation.metrics import mean
from csvae_hub.models import AttributeModel, Latents


def variety(
    model: AttributeModel,
    data: AttributeData,
    latents: Latents | None = None,
    *,
    seed: int = 0,
    pictures: int = 32,
    samples: int = 8,
) -> dict[str, Any]:
    """Root mean square, over pictures and pixels, of the standard deviation of x over edits that set one attribute.

    A model that knows one kind of glasses gives 0. The variance over the edits of one example is the unbiased one.

    At most `pictures` are drawn from `data`, and each is edited `samples` times. `latents` are what `encode_data` gave
    for `data`, where they're at hand. The seed chooses pictures and samples.

    Returns:
        In units of x: `sampled`, over edits to "sample"; `transferred`, over edits that take the attribute over from
        other examples, labelled present and taken for present by the model; `truth`, over the true pictures with these
        examples' kinds, None where the data has no counterfactuals; `sampled_ratio` and `transferred_ratio`, the
        first two over `truth`. For each of the `attributes`, and at the top the means over them. `transferred` is None,
        with a `reason`, where fewer than two examples have the attribute.

    Raises:
        ValueError: fewer than 2 samples, or no picture.
        UnknownAttributeError: the data lacks an attribute of the model.
    """
    if samples < 2 or pictures < 1:
        raise ValueError(f"expected at least 2 samples of at least 1 picture, got {samples} of {pictures}")
    data = data.select(model.attributes)
    codes = encode_data(model, data) if latents is None else latents
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    rows = torch.from_numpy(np.sort(rng.permutation(len(data))[:pictures])).repeat_interleave(samples)

    def spread(draw: Callable[[Tensor, Tensor], Tensor], donors: Tensor) -> float | None:
        """RMS of the standard deviation over `samples` neighbours of what is drawn; None without donors."""
        if len(donors) == 0:
            return None
        size = max(1, BATCH // samples) * samples
        drawn = (draw(own, given).double() for own, given in zip(rows.split(size), donors.split(size), strict=True))
        variances = [x.unflatten(0, (-1, samples)).var(1).flatten(1).mean(1) for x in drawn]
        return torch.cat(variances).mean().sqrt().item()

    def decoded(own: Tensor, name: str, value: Any) -> Tensor:
        return decode_all(model, edited(model, codes[own], {name: value}, generator))

    attributes: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(model.attributes):
        present = np.flatnonzero((data.labels[:, i] == 1) & (codes.y[:, i].numpy() > 0.5))
        few = len(present) < samples  # then some are drawn twice
        draws = [rng.choice(present, samples, replace=few) for _ in rows[::samples]] if len(present) > 1 else []
        donors = torch.from_numpy(np.array(draws, dtype=np.int64)).flatten()
        found = attributes[name] = {
            "sampled": spread(lambda own, _, name=name: decoded(own, name, "sample"), rows),
            "transferred": spread(lambda own, given, name=name: decoded(own, name, codes[given]), donors),
            "truth": None,
        }
        if data.has_counterfactuals:
            found["truth"] = spread(lambda own, given, name=name: data.counterfactual(own, name, True, given), donors)
        for key in ("sampled", "transferred"):
            known = found["truth"] and found[key] is not None
            found[f"{key}_ratio"] = found[key] / found["truth"] if known else None
        if not draws:
            found["reason"] = "fewer than two examples are labelled present and taken for present"
    names = ("sampled", "transferred", "truth", "sampled_ratio", "transferred_ratio")
    means = {key: mean(entry[key] for entry in attributes.values()) for key in names}
    return {**means, "pictures": len(rows) // samples, "samples": samples, "attributes": attributes}
