"""Total variation of the decoded picture (Rudin, Osher, Fatemi 1992): a part that smooths it."""

from __future__ import annotations

from torch import Tensor

from csvae_hub.training.steps import Part, Step, Weighted


def total_variation(images: Tensor) -> Tensor:
    r"""$\sum_{ij} |x_{i+1,j} - x_{ij}| + |x_{i,j+1} - x_{ij}|$: images (B, C, H, W) to (B,)."""
    return images.diff(dim=2).abs().flatten(1).sum(1) + images.diff(dim=3).abs().flatten(1).sum(1)


class TotalVariation(Part):
    """Adds `total_variation` of the decoded picture."""

    Options = Weighted

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The term, of p(x | z, w)'s mean."""
        return {"total_variation": total_variation(step.out.p_x.mean)}
