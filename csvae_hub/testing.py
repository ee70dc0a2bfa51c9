"""The conformance test of a backbone: what models, trainer and weights folders take for granted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
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

    It is built for grey and colour images of each size and for vectors, with and without a condition. It has to decline
    a shape that it does not take with a `ConfigError`. An image and a vector that it takes are tried by all `LAWS`.

    Args:
        cls: the class.
        config: width, depth and features to build it with.
        image_sizes: sides of the images, in pixels.

    Returns:
        The shapes that it takes.

    Raises:
        AssertionError: a law is broken; the text says the law, the data, what was expected and what came.
    """
    _expect(isinstance(cls, type) and issubclass(cls, Backbone), "a subclass of csvae_hub.backbones.Backbone", cls)
    missing = ", ".join(sorted(cls.__abstractmethods__))
    _expect(not missing, f"{cls.__name__} to have all methods of a Backbone", f"none named {missing}")
    with torch.random.fork_rng(devices=[]):
        images = [(channels, size, size) for size in image_sizes for channels in (1, 3)]
        shapes = [shape for shape in (*images, VECTOR) if _takes(_Case(cls, shape, CONDITION_DIM, config))]
        _expect(bool(shapes), f"{cls.__name__} to take some data", f"ConfigError for each of {[*images, VECTOR]}")
        for shape, condition_dim in itertools.product(shapes, (CONDITION_DIM, 0)):
            _check(_gives_the_shapes_asked_for, _Case(cls, shape, condition_dim, config))
        pictures = [shape for shape in shapes if shape != VECTOR]
        some = [max(pictures[:2])] if pictures else []
        some += [VECTOR] if VECTOR in shapes else []
        conditions = ((CONDITION_DIM, False), (CONDITION_DIM, True), (0, True))
        for shape, (condition_dim, film), law in itertools.product(some, conditions, LAWS):
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
        condition = f"condition_dim {self.condition_dim}, film {self.config.film}"
        return f"{self.cls.__name__} for x of shape {self.shape}, {condition}"

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
        for seed in (2, 3):
            _both(backbone, self.data(seed))
        return backbone.eval()

    def differentiated(self) -> tuple[Backbone, dict[str, Tensor]]:
        """A backbone and its inputs by name, after a backward pass from random sums of all that comes out."""
        backbone, (x, z, condition) = _shaken(self.seeded()), (tensor.requires_grad_() for tensor in self.data())
        outputs = backbone.encode(x), backbone.decode(z, condition)
        torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum().backward()
        return backbone, {"x": x, "z": z, "the condition": condition}


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
    for parameter in backbone.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return backbone


@torch.no_grad()
def _both(backbone: Backbone, data: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return backbone.encode(data[0]), backbone.decode(*data[1:])


def _without_gradient(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(name for name, t in tensors.items() if t.numel() and (t.grad is None or not t.grad.any()))


def _changed(state: dict[str, Tensor], before: dict[str, Tensor]) -> str:
    return ", ".join(name for name, tensor in state.items() if not torch.equal(tensor, before[name]))


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
    backbone, values = case.seeded(), (case.shape, Z_DIM, case.condition_dim, case.config)
    for name, value in zip(("shape", "z_dim", "condition_dim", "config"), values, strict=True):
        _expect(getattr(backbone, name) == value, f"{name} {value}", getattr(backbone, name))


def _trains_every_parameter(case: _Case) -> None:
    """Gradients reach every parameter."""
    untrained = _without_gradient({k: p for k, p in case.differentiated()[0].named_parameters() if p.requires_grad})
    _expect(not untrained, "a gradient for each parameter", f"none for {untrained}")


def _passes_gradients_on(case: _Case) -> None:
    """Gradients reach x, z and the condition, by which what comes before is trained."""
    cut = _without_gradient(case.differentiated()[1])
    _expect(not cut, "a gradient for each input", f"none for {cut}")


def _heeds_its_inputs(case: _Case) -> None:
    """X, z and the condition all change what comes out."""
    backbone, (x, z, condition) = case.trained(), case.data()
    features, decoded = _both(backbone, (x, z, condition))
    new = case.data(seed=5)  # not a shift, to which a norm may be blind
    changed = {"x": (new[0], z, condition), "z": (x, new[1], condition), "the condition": (x, z, new[2])}
    for name, data in changed.items():
        other = _both(backbone, data)
        same = torch.equal(other[0], features) if name == "x" else torch.equal(other[1], decoded)
        heard = not same or (name == "the condition" and case.condition_dim == 0)
        _expect(heard, f"another output for another value of {name}", "the same")


def _leaves_its_inputs(case: _Case) -> None:
    """The inputs are left as they are."""
    data, names = case.data(), ("x", "z", "condition")
    _both(case.trained(), data)
    changed = _changed(dict(zip(names, data, strict=True)), dict(zip(names, case.data(), strict=True)))
    _expect(not changed, "inputs that stay", f"a change of {changed}")


def _takes_channels_last(case: _Case) -> None:
    """Images whose memory is channels-last, as the models pass them, give the same."""
    backbone, (x, z, condition) = case.trained(), case.data()
    if x.ndim == 4:
        features = _both(backbone, (x.contiguous(memory_format=torch.channels_last), z, condition))[0]
        _expect(_is_close(features, _both(backbone, (x, z, condition))[0]), "equal features", "others")


def _keeps_examples_apart(case: _Case) -> None:
    """In eval mode an example gives the same alone and among others."""
    backbone, (x, z, condition) = case.trained(), case.data()
    among = _both(backbone, (x, z, condition))
    for one in (slice(0, 1), slice(-1, None)):
        alone = _both(backbone, (x[one], z[one], condition[one]))
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
    changed = _changed(backbone.state_dict(), state)
    _expect(not changed, "a state that stays", f"a change of {changed}")


def _starts_from_the_seed(case: _Case) -> None:
    """torch.manual_seed decides the first weights."""
    other = _changed(case.seeded().state_dict(), case.seeded().state_dict())
    _expect(not other, "equal weights from equal seeds", f"others in {other}")


def _lives_in_a_weights_folder(case: _Case) -> None:
    """A state that is saved and loaded is the same model."""
    backbone, data = case.trained(), case.data()
    state = {name: tensor.clone().contiguous() for name, tensor in backbone.state_dict().items()}
    infinite = ", ".join(name for name, tensor in state.items() if not tensor.isfinite().all())
    _expect(not infinite, "finite numbers, which is all that a weights folder takes", f"others in {infinite}")
    torch.manual_seed(4)
    other = case.build()
    other.load_state_dict(load(save(state)))
    same = all(map(torch.equal, _both(other.eval(), data), _both(backbone, data)))
    _expect(same, "the same output", "another: is something random, or learned, that the state_dict lacks?")


def _casts(case: _Case) -> None:
    """Cast to bfloat16 it takes and gives bfloat16."""
    backbone, data = case.trained(), case.data()
    whole, (x, z, condition) = _both(backbone, data), (tensor.bfloat16() for tensor in data)
    half = _both(backbone.bfloat16(), (x, z, condition))
    for name, a, b in zip(("features", "decoded values"), half, whole, strict=True):
        _expect(a.dtype == torch.bfloat16, f"{name} of torch.bfloat16", a.dtype)
        _expect(_is_close(a, b, 0.1), f"{name} near those of float32", f"{float((a.float() - b).abs().max()):.2g} off")


LAWS: tuple[Callable[[_Case], None], ...] = (
    _keeps_its_arguments,
    _leaves_its_inputs,
    _trains_every_parameter,
    _heeds_its_inputs,
    _passes_gradients_on,
    _is_deterministic,
    _takes_channels_last,
    _keeps_examples_apart,
    _starts_from_the_seed,
    _lives_in_a_weights_folder,
    _casts,
)
