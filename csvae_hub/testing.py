"""The conformance test of a backbone: what models, trainer and weights folders take for granted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from safetensors.torch import load, save
from torch import Tensor

from csvae_hub.backbones import Backbone
from csvae_hub.config import BackboneConfig
from csvae_hub.errors import ConfigError

Z_DIM, CONDITION_DIM, VECTOR = 7, 6, (5,)
SMALL = BackboneConfig(name="checked", width=8, depth=1, features=12)


def check_backbone(
    cls: type[Backbone], config: BackboneConfig = SMALL, image_sizes: Sequence[int] = (16, 32, 64)
) -> list[tuple[int, ...]]:
    """Checks that a backbone does what the rest of the library relies on; for the tests of who writes one.

    It is built for grey and colour images of each size and for vectors, without a condition and with one. A shape that
    it does not take has to be declined with a `ConfigError`. Then, for an image and a vector that it takes: gradients
    reach every parameter and input; examples don't mix, nothing is random and nothing changes in eval mode; bfloat16
    works; a state that is saved and loaded is the same model.

    Args:
        cls: the class.
        config: width, depth and features to build it with, where the small ones of this test don't do.
        image_sizes: sides of the images, in pixels.

    Returns:
        The shapes that it takes.

    Raises:
        AssertionError: a law is broken: which, for what data, what was expected and what came.
    """
    _expect(inspect.isclass(cls) and issubclass(cls, Backbone), "a subclass of csvae_hub.backbones.Backbone", cls)
    missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    _expect(not missing, f"{cls.__name__} to have all methods of a Backbone", f"none named {missing}")
    with torch.random.fork_rng(devices=[]):
        images = [(channels, size, size) for size in image_sizes for channels in (1, 3)]
        shapes = [shape for shape in (*images, VECTOR) if _takes(_Case(cls, shape, CONDITION_DIM, config))]
        _expect(bool(shapes), f"{cls.__name__} to take some data", f"ConfigError for each of {[*images, VECTOR]}")
        for shape in shapes:
            for condition_dim in (CONDITION_DIM, 0):
                _check(_gives_the_shapes_asked_for, _Case(cls, shape, condition_dim, config))
        pictures = [shape for shape in shapes if shape != VECTOR]
        some = [max(pictures[:2])] if pictures else []
        some += [VECTOR] if VECTOR in shapes else []
        for shape in some:
            for condition_dim, film in ((CONDITION_DIM, False), (CONDITION_DIM, True), (0, True)):
                for law in LAWS:
                    _check(law, _Case(cls, shape, condition_dim, replace(config, film=film)))
    return shapes


@dataclass(frozen=True)
class _Case:
    """One backbone to build, and data for it."""

    cls: type[Backbone]
    shape: tuple[int, ...]
    condition_dim: int
    config: BackboneConfig

    def __str__(self) -> str:
        return (
            f"{self.cls.__name__} for x of shape {self.shape}, condition_dim {self.condition_dim},"
            f" film {self.config.film}"
        )

    def build(self) -> Backbone:
        return self.cls(self.shape, Z_DIM, self.condition_dim, self.config)

    def seeded(self) -> Backbone:
        torch.manual_seed(0)
        return self.build()

    def data(self, seed: int = 1, batch: int = 8) -> tuple[Tensor, Tensor, Tensor]:
        """Random x, z and condition."""
        torch.manual_seed(seed)
        x = torch.rand(batch, *self.shape)
        return x, torch.randn(batch, Z_DIM), torch.randn(batch, self.condition_dim)

    def trained(self) -> Backbone:
        """A backbone in eval mode whose parameters and running moments are no longer those of the start."""
        backbone = _shaken(self.seeded())
        with torch.no_grad():
            for seed in (2, 3):
                x, z, condition = self.data(seed)
                backbone.encode(x)
                backbone.decode(z, condition)
        return backbone.eval()


def _check(law: Callable[[_Case], None], case: _Case) -> None:
    words = (law.__doc__ or "").rstrip(".")
    try:
        law(case)
    except AssertionError as error:
        raise AssertionError(f"{case}: {words}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{case}: {words}: expected no error, got {type(error).__name__}: {error}") from error


def _expect(condition: bool, expected: object, got: object) -> None:
    if not condition:
        raise AssertionError(f"expected {expected}, got {got}")


def _takes(case: _Case) -> bool:
    try:
        case.build()
    except ConfigError:
        return False
    except Exception as error:
        raise AssertionError(
            f"{case}: expected to be built, or ConfigError where it doesn't take such data,"
            f" got {type(error).__name__}: {error}"
        ) from error
    return True


def _shaken(backbone: Backbone) -> Backbone:
    """Without zeros of the start, which keep gradients from what lies before them."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone


@torch.no_grad()
def _both(backbone: Backbone, data: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, z, condition = data
    return backbone.encode(x), backbone.decode(z, condition)


def _is_close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    """Equal but for rounding, in units of the largest value."""
    return bool((a.float() - b.float()).abs().max() <= tolerance * (1 + b.float().abs().max()))


# -- the laws: each docstring is what the failure says first ---------------------------------------------------------


def _gives_the_shapes_asked_for(case: _Case) -> None:
    """Encode gives (B, features) and decode (B, *shape), finite, in training and for a single x in eval mode."""
    backbone = case.seeded()
    for batch in (8, 1):
        features, decoded = _both(backbone.train(batch > 1), case.data(batch=batch))
        shape = (batch, case.config.features)
        _expect(features.shape == shape, f"features of shape {shape}", tuple(features.shape))
        shape = (batch, *case.shape)
        _expect(decoded.shape == shape, f"decoded values of shape {shape}", tuple(decoded.shape))
        _expect(bool(features.isfinite().all() and decoded.isfinite().all()), "finite values", "NaN or infinity")


def _keeps_its_arguments(case: _Case) -> None:
    """The arguments are kept as shape, z_dim, condition_dim and config."""
    backbone = case.seeded()
    for name, value in (
        ("shape", case.shape),
        ("z_dim", Z_DIM),
        ("condition_dim", case.condition_dim),
        ("config", case.config),
    ):
        _expect(getattr(backbone, name) == value, f"{name} {value}", getattr(backbone, name))


def _trains_every_parameter(case: _Case) -> None:
    """Gradients reach every parameter."""
    backbone, (x, z, condition) = _shaken(case.seeded()), case.data()
    features, decoded = backbone.encode(x), backbone.decode(z, condition)
    ((features * torch.randn_like(features)).sum() + (decoded * torch.randn_like(decoded)).sum()).backward()
    untrained = [
        name
        for name, parameter in backbone.named_parameters()
        if parameter.requires_grad and parameter.numel() and (parameter.grad is None or not parameter.grad.any())
    ]
    _expect(not untrained, "a gradient for each parameter", f"none for {', '.join(untrained)}")


def _passes_gradients_on(case: _Case) -> None:
    """Gradients reach x, z and the condition, by which what comes before is trained."""
    backbone, inputs = _shaken(case.seeded()), [tensor.requires_grad_() for tensor in case.data()]
    x, z, condition = inputs
    features, decoded = backbone.encode(x), backbone.decode(z, condition)
    ((features * torch.randn_like(features)).sum() + (decoded * torch.randn_like(decoded)).sum()).backward()
    names = ("x", "z", "the condition")
    cut = [n for n, t in zip(names, inputs, strict=True) if t.numel() and (t.grad is None or not t.grad.any())]
    _expect(not cut, "a gradient for each input", f"none for {', '.join(cut)}")


def _heeds_its_inputs(case: _Case) -> None:
    """X, z and the condition all change what comes out."""
    backbone, (x, z, condition) = case.trained(), case.data()
    features, decoded = _both(backbone, (x, z, condition))
    new = case.data(seed=5)  # not a shift, to which a norm may be blind
    changed = {"x": (new[0], z, condition), "z": (x, new[1], condition), "the condition": (x, z, new[2])}
    if case.condition_dim == 0:
        del changed["the condition"]
    for name, data in changed.items():
        other = _both(backbone, data)
        same = torch.equal(other[0], features) if name == "x" else torch.equal(other[1], decoded)
        _expect(not same, f"another output for another value of {name}", "the same")


def _leaves_its_inputs(case: _Case) -> None:
    """The inputs are left as they are."""
    data, before = case.data(), case.data()
    _both(case.trained(), data)
    names = ("x", "z", "condition")
    changed = [name for name, a, b in zip(names, data, before, strict=True) if not torch.equal(a, b)]
    _expect(not changed, "inputs that stay", f"a change of {', '.join(changed)}")


def _takes_channels_last(case: _Case) -> None:
    """Images whose memory is channels-last, as the models pass them, give the same."""
    backbone, (x, z, condition) = case.trained(), case.data()
    if x.ndim == 4:
        features = _both(backbone, (x.contiguous(memory_format=torch.channels_last), z, condition))[0]
        _expect(_is_close(features, _both(backbone, (x, z, condition))[0]), "equal features", "others")


def _keeps_examples_apart(case: _Case) -> None:
    """In eval mode an example gives the same alone and among others."""
    backbone, data = case.trained(), case.data()
    among = _both(backbone, data)
    for one in (slice(0, 1), slice(-1, None)):
        alone = _both(backbone, (data[0][one], data[1][one], data[2][one]))
        for name, a, b in zip(("features", "decoded values"), alone, among, strict=True):
            _expect(_is_close(a, b[one]), f"equal {name}", f"a difference of {float((a - b[one]).abs().max()):.2g}")


def _is_deterministic(case: _Case) -> None:
    """In eval mode nothing is random and nothing is learned."""
    backbone, data = case.trained(), case.data()
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    random = torch.get_rng_state()
    first, second = _both(backbone, data), _both(backbone, data)
    _expect(all(map(torch.equal, first, second)), "the same output twice", "two different ones")
    _expect(torch.equal(torch.get_rng_state(), random), "no random numbers to be drawn", "some drawn")
    changed = [name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, state[name])]
    _expect(not changed, "a state that stays", f"a change of {', '.join(changed)}")


def _starts_from_the_seed(case: _Case) -> None:
    """torch.manual_seed decides the first weights."""
    first, second = case.seeded().state_dict(), case.seeded().state_dict()
    other = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    _expect(not other, "equal weights from equal seeds", f"others in {', '.join(other)}")


def _lives_in_a_weights_folder(case: _Case) -> None:
    """A state that is saved and loaded is the same model."""
    backbone, data = case.trained(), case.data()
    state = {name: tensor.clone().contiguous() for name, tensor in backbone.state_dict().items()}
    infinite = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    _expect(
        not infinite, "finite numbers, which is all that a weights folder takes", f"others in {', '.join(infinite)}"
    )
    torch.manual_seed(4)
    other = case.build()
    other.load_state_dict(load(save(state)))
    same = all(map(torch.equal, _both(other.eval(), data), _both(backbone, data)))
    _expect(same, "the same output", "another: is something random, or learned, that the state_dict lacks?")


def _casts(case: _Case) -> None:
    """Cast to bfloat16 it takes and gives bfloat16."""
    backbone, data = case.trained(), case.data()
    whole = _both(backbone, data)
    x, z, condition = (tensor.bfloat16() for tensor in data)
    half = _both(backbone.bfloat16(), (x, z, condition))
    for name, a, b in zip(("features", "decoded values"), half, whole, strict=True):
        _expect(a.dtype == torch.bfloat16, f"{name} of torch.bfloat16", a.dtype)
        _expect(_is_close(a, b, 0.1), f"{name} near those of float32", f"{float((a.float() - b).abs().max()):.2g} off")


LAWS: tuple[Callable[[_Case], None], ...] = (
    _keeps_its_arguments,
    _trains_every_parameter,
    _heeds_its_inputs,
    _leaves_its_inputs,
    _passes_gradients_on,
    _is_deterministic,
    _takes_channels_last,
    _keeps_examples_apart,
    _starts_from_the_seed,
    _lives_in_a_weights_folder,
    _casts,
)
