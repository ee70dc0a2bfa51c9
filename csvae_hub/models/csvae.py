"""The Conditional Subspace VAE (Klys, Snell, Zemel, NeurIPS 2018, arXiv 1812.06190)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Independent

from csvae_hub import losses
from csvae_hub.config import ModelConfig
from csvae_hub.distributions import draw
from csvae_hub.images import Preprocessor
from csvae_hub.models import class_means
from csvae_hub.models.base import AttributeModel, Output, Value
from csvae_hub.models.latents import Latents
from csvae_hub.models.values import resolved
from csvae_hub.networks import Adversary, PosteriorW, PosteriorZ, PriorW


@dataclass(frozen=True)
class CSVAEOutput(Output):
    """One pass with a sample of the posteriors, w (B, k, w_dim) and its distributions included."""

    q_w: Independent
    p_w: Independent
    w: Tensor


class CSVAE(AttributeModel):
    """A VAE with z, which knows nothing of the attributes, and a subspace w_i of `w_dim` numbers for each attribute.

    `class_means` (k, 2, w_dim) are the means of w_i over the training pictures without and with each attribute (ours:
    q(w | x, y) need not fill p(w | y)): of all pictures, or, where labels are noisy and an edit is to land among clear
    cases, of the clearer half of each class; running means of all while training, and p(w | y)'s before.
    """

    name = "csvae"
    needs = "w"
    trains_edits = True
    class_means: Tensor

    def __init__(self, config: ModelConfig, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(config, preprocessor)
        k, features = len(config.attributes), config.backbone.features
        beside = {"erase": config.erase, "flow": config.flow, "min_scale": config.min_scale}
        self.q_z = PosteriorZ(features, config.z_dim, k, **beside)
        self.q_w = PosteriorW(features, k, config.w_dim)
        self.p_w = PriorW([config.prior(a) for a in config.attributes], config.w_dim, config.learn_priors)
        self.register_buffer("class_means", self.p_w.loc.detach().clone())  # (k, absent and present, w_dim)
        self.q_y = self._attribute_head()
        self.adversary_net = Adversary(config.z_dim, k, config.adversary_width, config.adversary_depth)

    @staticmethod
    def condition_dim(config: ModelConfig) -> int:
        """All subspaces: k × w_dim."""
        return len(config.attributes) * config.w_dim

    # -- the distributions ----------------------------------------------------------------------------------------

    def posterior_z(self, x: Tensor, y: Tensor | None = None) -> Independent:
        """q(z | x) for x (B, *shape): event (z_dim,). A flow is told y (B, k), or q(y | x)'s answer."""
        features = self.backbone.encode(x)
        return self.q_z_given(features, self._filled(y, self.q_y(features)))

    def posterior_w(self, x: Tensor, y: Tensor) -> Independent:
        """q(w | x, y) for x (B, *shape), y (B, k): event (k, w_dim)."""
        return self._posterior_w(self.backbone.encode(x), y)

    def prior_w(self, y: Tensor) -> Independent:
        """p(w | y) for y (B, k): event (k, w_dim)."""
        return self.p_w(y)

    def subspace(self, name: str) -> slice:
        """Where w_i of an attribute lies in w flattened to (B, k · w_dim)."""
        i = self.index(name)
        return slice(i * self.config.w_dim, (i + 1) * self.config.w_dim)

    # -- training -------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> CSVAEOutput:
        """Encodes x (B, *shape) in [0, 1] with y (B, k), 0, 1 or NaN, samples z and w, and decodes."""
        features = self.features(x)
        logits = self.q_y(features)
        y = self._filled(y, logits)
        q_z, q_w = self.q_z(features, y), self._posterior_w(features, y)
        z, w = draw(q_z, generator), draw(q_w, generator)
        p_x = self.likelihood(self._decoded(z, w.flatten(1)))
        return CSVAEOutput(q_z, p_x, z, y, logits, q_w, self.prior_w(y), w)

    def bound(self, out: CSVAEOutput, x: Tensor) -> dict[str, Tensor]:
        """Reconstruction, kl_z and kl_w."""
        return {**self._plain_bound(out, x), "kl_w": losses.kl_w(out.q_w, out.p_w)}

    def forgetting(self, logits: Tensor, y: Tensor, share: Tensor | None) -> dict[str, Tensor]:
        """The adversary's negative entropy."""
        return {"negative_entropy": losses.negative_entropy(logits)}

    def observe(self, out: CSVAEOutput) -> None:
        """Keeps the running class means."""
        class_means.observe(self.class_means, out.q_w.mean.detach(), out.y)

    def edited_in_training(
        self, out: CSVAEOutput, which: Tensor, wished: Tensor, transferred: float, sampled: float
    ) -> Latents:
        """Another picture's w_i, where the batch has one of the wished class; the prior's sample; or the class mean.

        The rest goes to the mean of the wished class or beyond it, by up to half of the way between the two classes.
        """
        batch, device = len(which), which.device
        rows = torch.arange(batch, device=device)
        fits = wished[rows, which][:, None] == out.y[:, which].T
        donors = (torch.rand(batch, len(out.y), device=device) * fits).argmax(1)
        choice = torch.rand(batch, device=device)
        absent, present = self.class_means[which].unbind(1)
        sign = 2 * wished[rows, which] - 1
        value = wished[rows, which] + 0.5 * sign * torch.rand(batch, device=device)
        points = absent + value[:, None] * (present - absent)
        points = torch.where((choice > 1 - sampled)[:, None], self.prior_w(wished).sample()[rows, which], points)
        takes_over = ((choice < transferred) & fits.any(1))[:, None]
        points = torch.where(takes_over, out.w.detach()[donors, which], points)
        w = out.w[:batch].clone()
        w[rows, which] = points
        return Latents(out.z[:batch], w, wished, self.attributes)

    def shuffled(self, out: CSVAEOutput, batch: int) -> Latents:
        """Every w_i of the first examples taken over from some picture of the pass."""
        rows = torch.randint(len(out.z), (batch, out.y.shape[1]), device=out.z.device)
        columns = torch.arange(out.y.shape[1], device=out.z.device)
        return Latents(out.z[:batch], out.w[rows, columns], out.y[rows, columns], self.attributes)

    @torch.no_grad()
    def settle(self, batches: Iterable[tuple[Tensor, Tensor]], clear: bool = False) -> None:
        """Sets the eraser, if any, and the class means by all batches; gaps in y are filled in by q(y | x)."""
        self.eval()
        unerased: list[Tensor] = []
        attributes: list[Tensor] = []
        points: list[Tensor] = []
        for x, y in batches:
            features = self.backbone.encode(x)
            y = self._filled(y, self.q_y(features))
            unerased.append(self.q_z.code(features))
            points.append(self._posterior_w(features, y).mean)
            attributes.append(y)
        if self.q_z.eraser is not None:
            self.q_z.eraser.fit(torch.cat(unerased), torch.cat(attributes))
        w, y = torch.cat(points), torch.cat(attributes)
        class_means.observe(self.class_means, w, y, momentum=1.0)
        if clear:
            class_means.observe(self.class_means, w, y, momentum=1.0, counted=self._clear(w, y))

    def _clear(self, w: Tensor, y: Tensor) -> Tensor:
        """Which examples (B, k) are in the half of their class that lies farthest from the other class."""
        along = torch.einsum("bkd,kd->bk", w, self.class_means[:, 1] - self.class_means[:, 0])
        clear = torch.zeros_like(y, dtype=torch.bool)
        for i in range(y.shape[1]):
            for member, sign in ((y[:, i] > 0.5, 1), (y[:, i] < 0.5, -1)):
                if member.any():
                    place = sign * along[:, i]
                    clear[:, i] |= member & (place >= place[member].median())
        return clear

    # -- what the family asks for ---------------------------------------------------------------------------------

    def latents_of(
        self, features: Tensor, y: Tensor | None, sample: bool, generator: torch.Generator | None
    ) -> Latents:
        """Latents of features (B, features), with q(y | x)'s answer where y is None or NaN."""
        filled = self._filled(y, self.q_y(features))
        q_z, q_w = self.q_z_given(features, filled), self._posterior_w(features, filled)
        z, w = (draw(q_z, generator), draw(q_w, generator)) if sample else (q_z.mean, q_w.mean)
        return Latents(z, w, filled, self.attributes)

    def decode_tensor(self, latents: Latents) -> Tensor:
        """E p(x | w, z): (B, *shape)."""
        return self._decoded(latents.z, latents.w.flatten(1))

    def edit_latents(self, latents: Latents, name: str, value: Value, generator: torch.Generator | None) -> Latents:
        """Latents with w_i of one attribute replaced by the point that `value` stands for."""
        i = self.index(name)
        found = resolved(value, name, latents, self.encode)
        if isinstance(found, Latents):
            point = found.w[:, found.index(name)].expand(len(latents), -1)
        elif isinstance(found, Tensor):
            point = found
        elif found == "sample":
            p_w = self.prior_w(torch.ones_like(latents.y))
            noise = torch.randn(len(latents), self.config.w_dim, generator=generator).to(latents.w.device)
            point = p_w.mean[:, i] + p_w.stddev[:, i] * noise
        else:
            absent, present = self.class_means[i].to(latents.w)
            point = absent + found * (present - absent)
        return latents.replace(name, point)

    def sample_latents(self, n: int, y: Tensor | None, generator: torch.Generator | None) -> Latents:
        """Z from N(0, I), w from p(w | y) for y (n, k)."""
        y = self._random_attributes(n, y, generator)
        p_w = self.prior_w(y)
        z = torch.randn(n, self.config.z_dim, generator=generator).to(self.device)
        noise = torch.randn(p_w.mean.shape, generator=generator).to(self.device)
        return Latents(z, p_w.mean + p_w.stddev * noise, y, self.attributes)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _posterior_w(self, features: Tensor, y: Tensor) -> Independent:
        return self.q_w(features, y, self.prior_w(y) if self.config.residual else None)
