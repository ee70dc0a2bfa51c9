"""The conformance test passes what is right and answers each fault in words of its own."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from csvae_hub.backbones import Backbone
from csvae_hub.config import BackboneConfig, check
from csvae_hub.errors import ConfigError
from csvae_hub.testing import check_backbone


class Lines(Backbone):
    """The smallest backbone that there can be: right, and what each broken one differs from in one thing."""

    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        check(shape[-1] <= 16, "shape", "16 at most", shape)
        self.encoder = nn.Linear(torch.Size(shape).numel(), config.features)
        self.decoder = nn.Linear(z_dim + condition_dim, torch.Size(shape).numel())

    def encode(self, x):
        return self.encoder(x.flatten(1))

    def decode(self, z, condition):
        return self.decoder(torch.cat([z, condition], 1)).unflatten(1, self.shape)


def test_it_gives_the_shapes_that_are_taken():
    assert check_backbone(Lines) == [(1, 16, 16), (3, 16, 16), (5,)]
    assert check_backbone(Lines, image_sizes=[8]) == [(1, 8, 8), (3, 8, 8), (5,)]


def test_constants_beside_the_state_are_allowed():
    class Scaled(Lines):
        def __init__(self, shape, z_dim, condition_dim, config):
            super().__init__(shape, z_dim, condition_dim, config)
            self.factor = torch.tensor(2.0)
            self.register_buffer("shift", torch.arange(config.features) / 10, persistent=False)

        def encode(self, x):
            return self.factor.to(x) * super().encode(x) + self.shift

    assert check_backbone(Scaled, image_sizes=[16]) == [(1, 16, 16), (3, 16, 16), (5,)]


def test_a_norm_of_the_inputs_is_allowed():
    class Normed(Lines):
        def decode(self, z, condition):
            z = F.layer_norm(z, z.shape[1:])
            return super().decode(z, F.layer_norm(condition, condition.shape[1:]) if condition.shape[1] else condition)

    assert check_backbone(Normed, image_sizes=[16]) == [(1, 16, 16), (3, 16, 16), (5,)]


def test_it_takes_a_config_and_leaves_the_random_state():
    widths = set()

    class Wide(Lines):
        def __init__(self, shape, z_dim, condition_dim, config):
            super().__init__(shape, z_dim, condition_dim, config)
            widths.add((config.width, config.features))

    before = torch.get_rng_state()
    check_backbone(Wide, BackboneConfig(width=6, features=5))
    assert widths == {(6, 5)}
    assert torch.equal(torch.get_rng_state(), before)


class TooManyFeatures(Lines):
    def encode(self, x):
        return super().encode(x).repeat(1, 2)


class Flat(Lines):
    def decode(self, z, condition):
        return super().decode(z, condition).flatten(1)


class Overflowing(Lines):
    def decode(self, z, condition):
        return (1000 * super().decode(z, condition).abs()).exp()


class ColourOnly(Lines):
    def __init__(self, shape, z_dim, condition_dim, config):
        if shape[0] != 3:
            raise RuntimeError("three channels, please")
        super().__init__(shape, z_dim, condition_dim, config)


class NeedsACondition(Lines):
    def decode(self, z, condition):
        return super().decode(z, condition) + condition.amax(1).sum()


class NormInEval(Lines):
    def encode(self, x):
        features = super().encode(x)
        return features - features.mean(0)


class Forgetful(Lines):
    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        self.condition_dim = 0


class Idle(Lines):
    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        self.spare = nn.Linear(2, 2)


class Detached(Lines):
    def encode(self, x):
        return super().encode(x).detach().requires_grad_()


class CutsItsInput(Lines):
    def decode(self, z, condition):
        return super().decode(z.detach(), condition)


class SumsOverTheBatch(Lines):
    def encode(self, x):
        return super().encode(x).cumsum(0)


class DeafToConditions(Lines):
    def decode(self, z, condition):
        return super().decode(z, 0 * condition)


class Scribbling(Lines):
    def encode(self, x):
        return super().encode(x.mul_(2))


class Viewing(Lines):
    def encode(self, x):
        return self.encoder(x.view(len(x), -1))


class DropoutInEval(Lines):
    def encode(self, x):
        return F.dropout(super().encode(x), 0.5)


class DrawsInEval(Lines):
    def encode(self, x):
        return super().encode(x) + 0 * torch.rand(())


class LearnsInEval(Lines):
    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        self.register_buffer("calls", torch.zeros(()))

    def encode(self, x):
        self.calls += 1
        return super().encode(x)


class StartsAnywhere(Lines):
    seeds = iter(range(10_000))

    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        nn.init.normal_(self.encoder.weight, generator=torch.Generator().manual_seed(next(self.seeds)))


class LooseNoise(Lines):
    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        self.factor = torch.rand(())

    def encode(self, x):
        return self.factor.to(x.dtype) * super().encode(x)


class HiddenNoise(Lines):
    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        self.register_buffer("factor", torch.rand(()), persistent=False)

    def encode(self, x):
        return self.factor * super().encode(x)


class InfiniteMask(Lines):
    def __init__(self, shape, z_dim, condition_dim, config):
        super().__init__(shape, z_dim, condition_dim, config)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


class Upcasting(Lines):
    def decode(self, z, condition):
        return super().decode(z, condition).float()


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (TooManyFeatures, "and for a single x in eval mode: expected features of shape (8, 12), got (8, 24)"),
        (Flat, "expected decoded values of shape (8, 1, 16, 16), got (8, 256)"),
        (Overflowing, "expected finite values, got NaN or infinity"),
        (ColourOnly, "expected to be built, or ConfigError where it doesn't take such data, got RuntimeError: three"),
        (NeedsACondition, "condition_dim 0, film False: Encode gives (B, features) and decode (B, *shape)"),
        (NormInEval, "In eval mode an example gives the same alone and among others: expected equal features, got"),
        (Forgetful, "are kept as shape, z_dim, condition_dim and config: expected condition_dim 6, got 0"),
        (Idle, "Gradients reach every parameter: expected a gradient for each parameter, got none for spare.weight"),
        (Detached, "got none for encoder.weight, encoder.bias"),
        (CutsItsInput, "by which what comes before is trained: expected a gradient for each input, got none for z"),
        (
            SumsOverTheBatch,
            "In eval mode an example gives the same alone and among others: expected equal features, got",
        ),
        (DeafToConditions, "expected another output for another value of the condition, got the same"),
        (Scribbling, "The inputs are left as they are: expected inputs that stay, got a change of x"),
        (Viewing, "channels-last, as the models pass them, give the same: expected no error, got RuntimeError: view"),
        (DropoutInEval, "expected the same output twice, got two different ones"),
        (DrawsInEval, "expected no random numbers to be drawn, got some drawn"),
        (LearnsInEval, "expected a state that stays, got a change of calls"),
        (StartsAnywhere, "torch.manual_seed decides the first weights: expected equal weights from equal seeds, got"),
        (LooseNoise, "expected the same output, got another: is something random, or learned, that the state_dict"),
        (HiddenNoise, "expected the same output, got another: is something random, or learned, that the state_dict"),
        (InfiniteMask, "which is all that a weights folder takes, got others in mask"),
        (Upcasting, "it takes and gives bfloat16: expected decoded values of torch.bfloat16, got torch.float32"),
    ],
)
def test_a_broken_backbone_is_caught_by_its_own_words(cls, words):
    with pytest.raises(AssertionError, match=re.escape(words)) as caught:
        check_backbone(cls, image_sizes=[16])
    assert str(caught.value).startswith(f"{cls.__name__} for x of shape (")


def test_a_backbone_for_no_data_is_refused():
    class Picky(Lines):
        def __init__(self, shape, z_dim, condition_dim, config):
            raise ConfigError("shape: expected another")

    with pytest.raises(AssertionError, match=r"^expected Picky to take some data, got ConfigError for each of \[\(1"):
        check_backbone(Picky)


def test_what_is_no_backbone_is_refused():
    class Half(Backbone):
        def encode(self, x):
            return x

    with pytest.raises(
        AssertionError, match=r"^expected Half to have all methods of a Backbone, got none named decode"
    ):
        check_backbone(Half)
    with pytest.raises(AssertionError, match=r"^expected a subclass of csvae_hub\.backbones\.Backbone, got <class"):
        check_backbone(nn.Linear)
