"""Configs: strict on the way in, plain JSON on the way out, and errors that name the field."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, dataclass

import pytest

from csvae_hub.config import (
    AttributePrior,
    BackboneConfig,
    LikelihoodConfig,
    ModelConfig,
    from_dict,
    shown,
    to_dict,
)
from csvae_hub.errors import ConfigError

NAMES = ("Smiling", "Hat")


@dataclass(frozen=True)
class Mixed:
    """One field of every kind that `from_dict` follows."""

    flag: bool
    count: int = 1
    rate: float = 0.5
    clip: float | None = None
    either: int | str = 0
    pair: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()


def test_every_field_survives_json():
    config = ModelConfig(
        attributes=NAMES,
        shape=(1, 32, 32),
        z_dim=7,
        backbone=BackboneConfig(name="resnet", width=5, film=True),
        priors={"Hat": AttributePrior(absent_scale=1.0)},
        likelihood=LikelihoodConfig(name="laplace", scale=0.3),
        adversary=(4, 5, 6),
        residual=True,
    )
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_what_is_left_out_takes_its_default():
    assert from_dict(ModelConfig, {"attributes": ["Smiling", "Hat"]}) == ModelConfig(attributes=NAMES)


def test_kinds_of_fields():
    values = {"flag": True, "rate": 2, "clip": 1, "either": "a", "pair": [1, 2], "names": ["x", "y"]}
    mixed = from_dict(Mixed, values)
    assert mixed == Mixed(True, rate=2.0, clip=1.0, either="a", pair=(1.0, 2.0), names=("x", "y"))
    assert (type(mixed.rate), type(mixed.clip), type(mixed.pair[0])) == (float, float, float)
    assert from_dict(Mixed, {"flag": False, "clip": None}).clip is None


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "missing key 'flag': Mixed can't do without it"),
        ({"flag": 1}, "flag: expected bool, got 1"),
        ({"flag": True, "count": True}, "count: expected int, got True"),
        ({"flag": True, "count": 1.0}, "count: expected int, got 1.0"),
        ({"flag": True, "rate": False}, "rate: expected float, got False"),
        ({"flag": True, "rate": "1"}, "rate: expected float, got '1'"),
        ({"flag": True, "rate": None}, "rate: expected float, got None"),
        ({"flag": True, "clip": "no"}, "clip: expected float, got 'no'"),
        ({"flag": True, "pair": [1]}, "pair: expected 2 values, got 1"),
        ({"flag": True, "pair": [1, "a"]}, r"pair[1]: expected float, got 'a'"),
        ({"flag": True, "names": "ab"}, "names: expected a list, got 'ab'"),
        ({"flag": True, "names": ["a", 2]}, r"names[1]: expected str, got 2"),
        ([], "Mixed: expected an object of named fields, got list"),
    ],
)
def test_a_wrong_value_is_named(values, text):
    with pytest.raises(ConfigError) as caught:
        from_dict(Mixed, values)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"z_dims": 3}, "unknown key 'z_dims': did you mean 'z_dim'? Known here: attributes, model, shape"),
        ({"qqqqqq": 3}, "unknown key 'qqqqqq': remove it. Known here: attributes"),
        ({"backbone": {"widht": 3}}, "unknown key 'backbone.widht': did you mean 'width'? Known here: name, width"),
        ({"backbone": {"width": "3"}}, "backbone.width: expected int, got '3'"),
        ({"backbone": 3}, "backbone: expected an object of named fields, got int"),
        ({"priors": {"Hat": {"absent_loc": "0"}}}, "priors.Hat.absent_loc: expected float, got '0'"),
        ({"priors": []}, "priors: expected an object of named fields, got []"),
        ({"w_dim": True}, "w_dim: expected int, got True"),
        ({"erase": 1}, "erase: expected bool, got 1"),
    ],
)
def test_a_nested_key_is_named_by_its_path(changes, text):
    with pytest.raises(ConfigError) as caught:
        from_dict(ModelConfig, {"attributes": list(NAMES), **changes})
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"attributes": ()}, "attributes: expected at least one name, got ()"),
        ({"attributes": tuple(map(str, range(1025)))}, "attributes: expected at most 1024 names, got 1025"),
        ({"attributes": ("a", "a")}, "attributes: expected each name once, got ('a', 'a')"),
        ({"attributes": ("a", "")}, "attributes: expected names that are not empty, got ('a', '')"),
        ({"z_dim": 0}, "z_dim: expected 1 to 4096, got 0"),
        ({"w_dim": 10**9}, "w_dim: expected 1 to 4096, got 1000000000"),
        ({"adversary": (8,) * 9}, "adversary: expected at most 8 layers, got (8, 8, 8, 8, 8, 8, 8, 8, 8)"),
        ({"adversary": (8, 0)}, "adversary[1]: expected 1 to 4096, got 0"),
        ({"min_scale": 1.0}, "min_scale: expected 0 or more, less than 1, got 1.0"),
        ({"flow": 8, "erase": True}, "flow: expected 0 where erase is on: one of the two, got 8"),
        ({"flow": 8, "z_dim": 1}, "flow: expected 0 where z_dim is 1, got 8"),
        ({"flow": -1}, "flow: expected 0 to 4096, got -1"),
        ({"shape": (5,), "z_grid": 4}, "z_grid: expected 1 for a model of vectors, got 4"),
        ({"z_grid": 64}, "z_grid: expected 1, or one of [4, 8, 16, 32], got 64"),
        ({"shape": (3, 16, 16), "z_grid": 2}, "z_grid: expected 1, or one of [4, 8], got 2"),
        ({"z_grid": 0}, "z_grid: expected 1, or one of [4, 8, 16, 32], got 0"),
        ({"z_grid": 4, "z_dim": 24}, "z_dim: expected a multiple of z_grid² = 16, got 24"),
        ({"z_grid": 4, "flow": 8}, "z_grid: expected 1 where flow or correction is on, got 4"),
        ({"z_grid": 4, "correction": True}, "z_grid: expected 1 where flow or correction is on, got 4"),
        ({"shape": (4, 64, 64)}, "shape: expected 1 or 3 channels first, got (4, 64, 64)"),
        (
            {"shape": (3, 64, 32)},
            "shape: expected (C, H, W) with H = W of 16 to 256 that halve down to 4, 5, 6 or 7, got (3, 64, 32)",
        ),
        (
            {"shape": (3, 36, 36)},
            "shape: expected (C, H, W) with H = W of 16 to 256 that halve down to 4, 5, 6 or 7, got (3, 36, 36)",
        ),
        ({"shape": (3, 64)}, "shape: expected (C, H, W) for images or (D,) for vectors, got (3, 64)"),
        ({"shape": (0,)}, "shape: expected 1 to 4096 values, got (0,)"),
        (
            {"priors": {"Cap": AttributePrior()}},
            "priors: expected attributes of this model (Smiling, Hat), got 'Cap'",
        ),
    ],
)
def test_what_no_model_can_have(fields, text):
    with pytest.raises(ConfigError) as caught:
        ModelConfig(**{"attributes": NAMES, **fields})
    assert str(caught.value) == text


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("cls", "fields", "field"),
    [
        *[(AttributePrior, {name: v}, f"priors.{name}") for name in ("absent_loc", "present_loc") for v in (NAN, -INF)],
        *[(AttributePrior, {"absent_scale": v}, "priors.absent_scale") for v in (0.0, -1.0, NAN, INF)],
        *[(LikelihoodConfig, {"scale": v}, "likelihood.scale") for v in (0.0, NAN, INF)],
        (LikelihoodConfig, {"name": "gauss"}, "likelihood.name"),
        (BackboneConfig, {"width": 0}, "backbone.width"),
        (BackboneConfig, {"depth": -1}, "backbone.depth"),
        (BackboneConfig, {"features": 10**6}, "backbone.features"),
    ],
)
def test_numbers_out_of_range_are_refused(cls, fields, field):
    with pytest.raises(ConfigError, match=rf"^{field}: expected .*, got"):
        cls(**fields)


def test_images_have_a_size_and_vectors_have_none():
    images, vectors = ModelConfig(attributes=NAMES, shape=(3, 32, 32)), ModelConfig(attributes=NAMES, shape=(3,))
    assert (images.is_image, images.image_size) == (True, 32)
    assert not vectors.is_image
    with pytest.raises(ConfigError, match="this model takes vectors, which have no image size, got \\(3,\\)"):
        _ = vectors.image_size


def test_an_attribute_without_a_prior_takes_the_default():
    config = ModelConfig(attributes=NAMES, priors={"Hat": AttributePrior(present_loc=1.0)})
    assert config.prior("Hat").present_loc == 1.0
    assert config.prior("Smiling") == AttributePrior(0.0, 0.1, 3.0, 1.0)


def test_configs_are_frozen():
    with pytest.raises(FrozenInstanceError):
        ModelConfig(attributes=NAMES).z_dim = 3  # type: ignore[misc]


LONG = "x" * 1_000_000
HUGE_VALUES = {
    "a text": {"model": LONG, "z_dim": LONG},
    "a key": {LONG: 1},
    "a nested key": {"backbone": {LONG: 1}},
    "a key of a mapping": {"priors": {LONG: 1}},
    "a prior of nobody": {"priors": {LONG: {}}},
    "many names": {"attributes": [f"{i}" for i in range(100_000)]},
    "names twice": {"attributes": ["a"] * 4000},
    "a name twice": {"attributes": [LONG, LONG]},
    "names beside a prior": {"attributes": [LONG], "priors": {"Hat": {}}},
    "a list": {"z_dim": [0] * 1_000_000},
    "lists in lists": {"z_dim": [[[["a" * 1000] * 100] * 100] * 100] * 100},
    "a mapping": {"z_dim": {f"{i}": LONG for i in range(100)}},
    "a whole number": {"z_dim": 10**4000},
    "a package": {"backbone": {"package": LONG}},
    "a likelihood": {"likelihood": {"name": LONG}},
}


@pytest.mark.parametrize("kind", list(HUGE_VALUES))
def test_what_an_error_says_of_a_huge_value_is_short(kind):
    with pytest.raises(ConfigError) as caught:
        from_dict(ModelConfig, {"attributes": NAMES, **HUGE_VALUES[kind]})
    assert len(str(caught.value)) < 1700
    assert re.match(r"[\w.…]+: expected |unknown key '(backbone\.)?xxx", str(caught.value))


def test_what_an_error_says_of_an_ordinary_value_is_all_of_it():
    for value in ("Smiling", (3, 64, 48), 0.5, ["a", {"b": None}], -7, LikelihoodConfig()):
        assert shown(value) == repr(value)
    assert shown("a" * 1000).startswith("'aaa")
