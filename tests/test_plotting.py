from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from csvae_hub import plotting
from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.errors import UnknownAttributeError
from csvae_hub.models import Latents, create_model

NAMES = ("A", "B", "C")


@pytest.fixture(autouse=True)
def without_pyplot(monkeypatch):
    """An import of pyplot, which opens windows and keeps every figure, would fail."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)


def result_of(leak, wished):
    return {
        "leakage": {"z": {"mlp": {"max": leak}, "logistic": {"max": leak and leak - 0.1}}},
        "attribute_change": {"wished": wished},
    }


def model_of(name="csvae", shape=(3, 16, 16), w_dim=2):
    backbone = BackboneConfig(width=4, features=8, name="conv" if len(shape) == 3 else "mlp")
    return create_model(ModelConfig(NAMES, name, shape=shape, z_dim=4, w_dim=w_dim, backbone=backbone)).eval()


def codes(n=50, w_dim=2):
    generator = torch.Generator().manual_seed(0)
    z, w = torch.randn(n, 4, generator=generator), torch.randn(n, 3, w_dim, generator=generator)
    return Latents(z, w, torch.bernoulli(torch.full((n, 3), 0.5), generator=generator), NAMES)


def test_edits_against_leakage_has_a_point_a_seed_and_a_colour_a_model():
    figure = plotting.edits_against_leakage(
        {"csvae": [result_of(0.6, 0.9), result_of(0.7, 0.8)], "vae": result_of(0.95, 0.3)}
    )
    (axes,) = figure.axes
    csvae, vae = axes.collections
    assert csvae.get_offsets().tolist() == [[0.6, 90.0], [0.7, 80.0]]
    assert vae.get_offsets().tolist() == [[0.95, 30.0]]
    assert not np.array_equal(csvae.get_facecolor(), vae.get_facecolor())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["csvae", "vae"]
    logistic = plotting.edits_against_leakage({"vae": result_of(0.95, 0.3)}, probe="logistic")
    assert logistic.axes[0].collections[0].get_offsets()[0, 0] == pytest.approx(0.85)


def test_results_without_the_figures_are_named():
    for result in (result_of(None, 0.9), result_of(0.6, None), {**result_of(0.6, 0.9), "attribute_change": None}, []):
        with pytest.raises(ValueError, match="roll: expected the share of wished edits and the leakage, got a result"):
            plotting.edits_against_leakage({"roll": result})
    with pytest.raises(ValueError, match="expected at least one result and the probe mlp or logistic, got 0 and 'mlp'"):
        plotting.edits_against_leakage({})
    with pytest.raises(ValueError, match="got 1 and 'tree'"):
        plotting.edits_against_leakage({"vae": result_of(0.9, 0.9)}, probe="tree")


def test_planes_have_all_points_coloured_by_each_attribute():
    latents = codes()
    labels = latents.y.numpy().copy()
    labels[3, 1] = np.nan
    panels = np.array(plotting.subspace_planes(latents, labels).axes).reshape(3, 3)
    for i in range(3):
        for j in range(3):
            points = panels[i, j].collections[0]
            assert np.allclose(points.get_offsets(), latents.w[:, i])
            colours = [tuple(colour) for colour in points.get_facecolor()]
            assert len({colours[n] for n in np.flatnonzero(labels[:, j] == 1)}) == 1
            assert len(set(colours)) == (3 if j == 1 else 2)
            assert panels[i, j].spines["left"].get_linewidth() == (2.0 if i == j else 0.5)
    assert (panels[0, 2].get_title(), panels[2, 0].get_ylabel()) == ("by C", "W of C")


def test_planes_of_some_attributes_and_of_so_many_points():
    latents = codes()
    figure = plotting.subspace_planes(latents, latents.y.numpy(), ["C", "A"], most=10)
    assert len(figure.axes) == 4
    assert np.allclose(figure.axes[1].collections[0].get_offsets(), latents.w[:10, 2])
    with pytest.raises(UnknownAttributeError, match="unknown attribute 'D'"):
        plotting.subspace_planes(latents, latents.y.numpy(), ["D"])
    with pytest.raises(ValueError, match=r"labels: expected shape \(50, 3\), one row a latent, got \(50, 2\)"):
        plotting.subspace_planes(latents, latents.y.numpy()[:, :2])


class Points:
    """A model whose pictures say the point of W_B that they come from: red the first coordinate, green the other."""

    attributes = NAMES
    config = ModelConfig(NAMES, shape=(3, 16, 16))
    index = staticmethod(NAMES.index)

    def encode(self, picture):
        return codes(len(picture))

    def edit(self, latents, values):
        ((name, value),) = values.items()
        point = torch.tensor([0.6, 0.8] if value else [0.2, 0.2]) if isinstance(value, float) else value
        return latents.replace(name, point)

    def decode(self, latents):
        pictures = torch.zeros(len(latents), 3, 16, 16)
        pictures[:, :2] = latents.w[:, 1, :, None, None]
        return pictures


def test_a_traversal_shows_each_picture_at_its_point():
    figure = plotting.traversal(Points(), torch.zeros(1, 3, 16, 16), "B", steps=9, extent=((0, 0.8), (0.1, 0.9)))
    (axes,) = figure.axes
    (image,) = axes.images
    pixels, (left, right, bottom, top) = image.get_array(), image.get_extent()
    assert pixels.shape == (144, 144, 3)
    assert (left, right, bottom, top) == pytest.approx((-0.05, 0.85, 0.05, 0.95))
    for row in range(9):
        for column in range(9):
            x, y = 0.1 * column, 0.9 - 0.1 * row
            picture = pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            assert np.allclose(picture, [x, y, 0], atol=1e-6)
    assert [text.get_text() for text in axes.texts] == ["absent", "present"]
    assert np.allclose([text.xy for text in axes.texts], [[0.2, 0.2], [0.6, 0.8]])


def test_the_default_square_holds_both_classes():
    (left, right, bottom, top) = plotting.traversal(Points(), codes(1), "B").axes[0].images[0].get_extent()
    assert right - left == pytest.approx(top - bottom)
    assert left < 0.2 < 0.6 < right
    assert bottom < 0.2 < 0.8 < top
    assert (left + right) / 2 == pytest.approx(0.4)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 16, 16)])
def test_a_traversal_of_the_model_itself(shape):
    model = model_of(shape=shape)
    picture = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    pixels = plotting.traversal(model, picture, "B", steps=3, extent=((0, 1), (0, 1))).axes[0].images[0].get_array()
    with torch.no_grad():
        corner = model.decode(model.edit(model.encode(picture), {"B": [1.0, 0.0]}))[0]
    assert np.allclose(pixels[32:, 32:], corner.permute(1, 2, 0).expand(-1, -1, 3), atol=1e-5)


@pytest.mark.parametrize("name", ["vae", "cond-vae", "cond-vae-info"])
def test_a_model_without_subspaces_has_no_planes(name):
    model = model_of(name)
    words = "got a model without subspaces, which has no planes: use a CSVAE"
    with pytest.raises(ValueError, match=words):
        plotting.traversal(model, torch.rand(1, 3, 16, 16), "A")
    with torch.no_grad():
        latents = model.encode(torch.rand(4, 3, 16, 16))
    with pytest.raises(ValueError, match=words):
        plotting.subspace_planes(latents, np.zeros((4, 3), np.float32))


def test_subspaces_that_are_no_planes_are_named():
    with pytest.raises(ValueError, match="expected subspaces of two numbers or more, got 1: train with w_dim = 2"):
        plotting.subspace_planes(codes(w_dim=1), codes().y.numpy())
    with pytest.raises(ValueError, match="got 1: train"):
        plotting.traversal(model_of(w_dim=1), torch.rand(1, 3, 16, 16), "A")
    with pytest.raises(ValueError, match="expected subspaces of two numbers or examples, got 3: give examples"):
        plotting.traversal(model_of(w_dim=3), torch.rand(1, 3, 16, 16), "A")


def test_a_plane_of_more_numbers_shows_the_classes_apart_and_the_greatest_spread_across():
    torch.manual_seed(0)
    y = torch.arange(400) % 2
    w = torch.randn(400, 4) * torch.tensor([0.1, 3.0, 0.2, 0.1]) + 5 * y[:, None] * torch.tensor([0.0, 0.0, 0.0, 1.0])
    first, second = plotting.plane(w, y)
    assert first[3] > 0.98
    assert second[1].abs() > 0.98
    torch.testing.assert_close(torch.stack([first, second]) @ torch.stack([first, second]).T, torch.eye(2))
    assert plotting.plane(w, torch.ones(400))[0][1].abs() > 0.98
    assert torch.equal(plotting.plane(w[:, :2], y), torch.eye(2))


def test_planes_and_traversals_of_subspaces_of_four_numbers(tmp_path):
    model, pictures = model_of(w_dim=4), torch.rand(30, 3, 16, 16)
    with torch.no_grad():
        latents = model.encode(pictures)
    figure = plotting.subspace_planes(latents, latents.y.numpy())
    shown = figure.axes[0].collections[0].get_offsets()
    assert np.allclose(shown, latents.w[:, 0] @ plotting.plane(latents.w[:, 0], latents.y[:, 0]).T, atol=1e-5)
    plotting.save_figure(plotting.traversal(model, latents[:1], "A", steps=3, examples=latents), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_what_cannot_be_traversed_is_named():
    model, picture = model_of(), torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match="expected a model of images and at least 2 steps, got shape .* and 1 steps"):
        plotting.traversal(model, picture, "A", steps=1)
    with pytest.raises(ValueError, match=r"expected a model of images .* got shape \(3,\)"):
        plotting.traversal(model_of(shape=(3,)), torch.rand(1, 3), "A")
    with pytest.raises(ValueError, match="expected one picture, got 2"):
        plotting.traversal(model, torch.rand(2, 3, 16, 16), "A")
    with pytest.raises(ValueError, match="extent: expected two ranges from a lower to a higher number"):
        plotting.traversal(model, picture, "A", extent=((0, 0), (0, 1)))
    with pytest.raises(UnknownAttributeError, match="unknown attribute 'D'"):
        plotting.traversal(model, picture, "D")


def test_figures_are_written_whole(tmp_path, monkeypatch):
    figure = plotting.edits_against_leakage({"vae": result_of(0.9, 0.5)})
    plotting.save_figure(figure, tmp_path / "points.png", dpi=50)
    plotting.save_figure(figure, tmp_path / "points.svg")
    with Image.open(tmp_path / "points.png") as picture:
        assert picture.size == (250, 200)
    assert (tmp_path / "points.svg").read_text().startswith("<?xml")
    before = (tmp_path / "points.png").read_bytes()
    monkeypatch.setattr(figure, "savefig", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        plotting.save_figure(figure, tmp_path / "points.png")
    assert (tmp_path / "points.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["points.png", "points.svg"]
