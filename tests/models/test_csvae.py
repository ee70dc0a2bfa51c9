"""The model as its user and its losses see it: distributions, encoding, decoding, sampling, same kind out as in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Independent

from csvae_hub.config import ModelConfig
from csvae_hub.errors import ConfigError, ImageError, UnknownAttributeError
from csvae_hub.images import Preprocessor, open_image
from csvae_hub.models import CSVAE, Latents, create_model, list_models

NAMES = ("Smiling", "Hat", "Young")


def inputs(model, n=4):
    """What the user gives, (n, *shape); a grey model takes grey and colour alike."""
    return torch.rand(n, *model.config.shape)


def some_y(n=4):
    return torch.randint(2, (n, 3)).float()


# -- the distributions ------------------------------------------------------------------------------------------------


def test_the_distributions_have_the_batch_and_event_shapes_of_their_symbols(model):
    x, y, z_dim = inputs(model), some_y(), model.config.z_dim
    shapes = {
        "q(z | x)": (model.posterior_z(x), (4,), (z_dim,)),
        "q(w | x, y)": (model.posterior_w(x, y), (4,), (3, 2)),
        "p(z)": (model.prior_z(), (), (z_dim,)),
        "p(w | y)": (model.prior_w(y), (4,), (3, 2)),
        "q(y | x)": (model.posterior_y(x), (4,), (3,)),
        "q(y | z)": (model.adversary(torch.randn(4, z_dim)), (4,), (3,)),
        "p(x | w, z)": (model.p_x_given(model.encode(x)), (4,), model.config.shape),
    }
    for name, (distribution, batch, event) in shapes.items():
        assert isinstance(distribution, Independent), name
        assert (distribution.batch_shape, distribution.event_shape) == (batch, event), name
        assert distribution.log_prob(distribution.sample()).isfinite().all(), name


def test_forward_gives_what_the_losses_need(model):
    x, y = inputs(model), some_y()
    out = model(x, y)
    assert (out.z.shape, out.w.shape) == ((4, model.config.z_dim), (4, 3, 2))
    assert torch.equal(out.y, y)
    assert out.p_x.mean.shape == x.shape
    torch.testing.assert_close(out.q_z.mean, model.posterior_z(x, out.y).mean)
    torch.testing.assert_close(out.q_w.mean, model.posterior_w(x, y).mean)
    torch.testing.assert_close(out.p_w.mean, model.prior_w(y).mean)
    torch.testing.assert_close(out.q_y.mean, model.posterior_y(x).mean)


def test_forward_fills_missing_attributes_with_its_own_answer(model):
    x, y = inputs(model), some_y()
    answer = (model.posterior_y(x).mean > 0.5).float()
    missing = torch.rand(4, 3) < 0.5
    out = model(x, y.masked_fill(missing, torch.nan))
    assert torch.equal(out.y, torch.where(missing, answer, y))
    expected = torch.where(missing, model.posterior_y(x).mean.detach(), y)
    assert not torch.equal(expected, out.y)
    torch.testing.assert_close(out.q_w.mean, model.posterior_w(x, expected).mean)
    torch.testing.assert_close(out.p_w.mean, model.prior_w(expected).mean)
    loss = out.q_w.mean.sum() + out.p_w.mean.sum()
    assert all(g is None for g in torch.autograd.grad(loss, list(model.q_y.parameters()), allow_unused=True))


def test_a_generator_makes_forward_the_same_again(model):
    x, y = inputs(model), some_y()
    first, second = (model(x, y, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.p_x.mean, second.p_x.mean)


def test_the_subspaces_are_slices_of_w_flattened(model):
    latents = model.encode(inputs(model))
    for i, name in enumerate(NAMES):
        assert torch.equal(latents.w.flatten(1)[:, model.subspace(name)], latents.w[:, i])


# -- encode, decode, sample, predict ----------------------------------------------------------------------------------


def test_encoding_gives_the_posteriors_means(model):
    x, y = inputs(model), some_y()
    latents = model.encode(x, y)
    assert latents.attributes == NAMES
    assert torch.equal(latents.y, y)
    torch.testing.assert_close(latents.z, model.posterior_z(x, y).mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(latents.w, model.posterior_w(x, y).mean, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.encode(x, y).z, latents.z)


def test_without_y_the_model_answers_itself(model):
    x = inputs(model)
    inferred = (model.posterior_y(x).mean > 0.5).float()
    latents = model.encode(x)
    assert torch.equal(latents.y, inferred)
    assert torch.equal(model.encode(x, inferred).w, latents.w)
    y = some_y()
    missing = torch.rand(4, 3) < 0.5
    assert torch.equal(model.encode(x, y.masked_fill(missing, torch.nan)).y, torch.where(missing, inferred, y))


def test_encoding_samples_on_request(model):
    x, y = inputs(model), some_y()
    mean = model.encode(x, y)
    first, second = (model.encode(x, y, sample=True, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.w, second.w)
    assert not torch.equal(first.z, mean.z)
    assert not torch.equal(model.encode(x, y, sample=True).w, first.w)


def test_y_of_another_shape_is_refused(model):
    with pytest.raises(
        ValueError, match=r"y: expected shape \(4, 3\), one column for each of Smiling, Hat, Young; got"
    ):
        model.encode(inputs(model), torch.zeros(4, 2))


def test_decoding_takes_latents_or_z_and_w(model):
    latents = model.encode(inputs(model))
    decoded = model.decode(latents)
    assert decoded.shape == (4, *model.config.shape)
    assert torch.equal(model.decode(latents.z, latents.w), decoded)
    if model.config.is_image:
        assert 0 <= decoded.min() < decoded.max() <= 1
    with pytest.raises(ValueError, match=r"decode\(z\) needs w of shape \(B, k, w_dim\) beside it"):
        model.decode(latents.z)
    with pytest.raises(ValueError, match="holds w and y already"):
        model.decode(latents, latents.w)


def test_reconstructing_is_decoding_what_was_encoded(model):
    x = inputs(model)
    torch.testing.assert_close(model.reconstruct(x), model.decode(model.encode(x)))


def test_sampling(model):
    def draw(y=None):
        return model.sample(3, y, generator=torch.Generator().manual_seed(5))

    assert draw().shape == (3, *model.config.shape)
    assert torch.equal(draw(), draw())
    present = torch.tensor([1.0, 0.0, 1.0])
    assert torch.equal(draw(present), draw(present.expand(3, 3)))
    assert not torch.equal(draw(present), draw(1 - present))
    with pytest.raises(ValueError, match="n: expected at least 1 image to sample, got 0"):
        model.sample(0)
    with pytest.raises(ValueError, match=r"y: expected shape \(3,\) or \(2, 3\), got \(2,\)"):
        model.sample(2, torch.zeros(2))


def test_predicted_attributes_are_the_probabilities_of_the_classifier(model):
    x = inputs(model)
    predicted = model.predict_attributes(x)
    assert list(predicted) == list(NAMES)
    torch.testing.assert_close(torch.stack(list(predicted.values()), 1), model.posterior_y(x).mean)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 4), torch.zeros(5), "photo.jpg", [1.0] * 5])
def test_a_model_of_vectors_takes_vectors_only(models, wrong):
    with pytest.raises(ValueError, match=r"expected a tensor of vectors \(B, 5\), got"):
        models["vector"].encode(wrong)


def test_a_grey_model_takes_colour_and_gives_it_back(models):
    colour = torch.rand(2, 3, 16, 16)
    edited = models["grey"].set_attribute(colour, "Hat")
    assert edited.shape == colour.shape
    assert torch.equal(edited[:, 0], edited[:, 2])


# -- the end of training ----------------------------------------------------------------------------------------------


def test_finalizing_changes_the_classes_moments_alone(new_model):
    model = new_model("image, every option").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = torch.rand(60, 3, 16, 16), some_y(60)
    model.finalize(zip(x.split(25), y.split(25), strict=True))
    assert not model.training
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"class_means", "class_scales"}
    w = torch.cat([model.encode(part, own).w for part, own in zip(x.split(25), y.split(25), strict=True)])
    for i in range(3):
        for value in (0, 1):
            of_class = w[y[:, i] == value, i]
            torch.testing.assert_close(model.class_means[i, value], of_class.mean(0))
            torch.testing.assert_close(model.class_scales[i, value], of_class.std(0, correction=0))


def test_finalizing_fills_missing_attributes(new_model):
    model, x = new_model("image"), torch.rand(60, 3, 16, 16)
    inferred = model.encode(x).y
    model.finalize([(x, torch.full((60, 3), torch.nan))])
    filled = model.class_means.clone()
    model.finalize([(x, inferred)])
    assert torch.equal(model.class_means, filled)


def test_edits_go_to_the_means_of_the_classes_once_finalized(new_model):
    model, x, y = new_model("image"), torch.rand(60, 3, 16, 16), some_y(60)
    model.finalize(zip(x.split(25), y.split(25), strict=True))
    w = model.encode(x, y).w[:, 1]
    latents = model.encode(x[:2])
    for value in (True, False):
        expected = w[y[:, 1] == value].mean(0)
        torch.testing.assert_close(model.set_attribute(latents, "Hat", value).w[0, 1], expected)
    between = model.set_attribute(latents, "Hat", 0.25).w[0, 1]
    torch.testing.assert_close(between, 0.75 * model.class_means[1, 0] + 0.25 * model.class_means[1, 1])


def test_a_class_that_no_example_has_keeps_its_mean(new_model):
    model = new_model("image")
    means = model.class_means
    before = means.clone()
    latents = Latents(torch.zeros(4, 8), torch.ones(4, 3, 2), torch.zeros(4, 3), NAMES)
    model.update_class_means(latents, momentum=0.5)
    assert torch.equal(means[:, 1], before[:, 1])
    torch.testing.assert_close(means[:, 0], 0.5 * before[:, 0] + 0.5)


# -- what comes out is what came in -----------------------------------------------------------------------------------


@pytest.fixture(params=["path", "RGB", "RGBA", "L", "array", "grey array", "(C, H, W)", "(B, C, H, W)", "half", "list"])
def given_image(request, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(array)
    picture.save(tmp_path / "photo.png")
    tensor = torch.rand(3, 24, 16)
    return {
        "path": tmp_path / "photo.png",
        "RGB": picture,
        "RGBA": picture.convert("RGBA"),
        "L": picture.convert("L"),
        "array": array,
        "grey array": array[..., 0].copy(),
        "(C, H, W)": tensor,
        "(B, C, H, W)": tensor.expand(2, 3, 24, 16),
        "half": tensor.half(),
        "list": [picture, array, tensor],
    }[request.param]


def kind_of(image):
    """What there is to say of an image but its pixels."""
    if isinstance(image, list):
        return [kind_of(part) for part in image]
    if isinstance(image, Image.Image):
        return Image.Image, image.mode, image.size
    return type(image), image.dtype, tuple(image.shape)


@pytest.mark.parametrize("method", ["set_attribute", "edit", "reconstruct"])
@pytest.mark.filterwarnings("ignore::csvae_hub.errors.FramingWarning")  # noise has no face
def test_the_same_kind_and_size_comes_back(image_model, given_image, method):
    arguments = {"set_attribute": ("Hat", True), "edit": ({"Hat": True, "Young": 0.3},), "reconstruct": ()}[method]
    result = getattr(image_model, method)(given_image, *arguments)
    expected = open_image(given_image) if isinstance(given_image, Path) else given_image
    assert kind_of(result) == kind_of(expected)


def test_editing_latents_and_editing_images_are_the_same(model):
    x, values = inputs(model), {"Hat": True, "Smiling": 0.0}
    edited = model.edit(model.encode(x), values)
    torch.testing.assert_close(model.decode(edited), model.edit(x, values))


def test_images_that_cannot_be_are_refused(image_model):
    for images in ([], torch.full((3, 16, 16), 7.0), np.zeros((16, 16, 3)), None):
        with pytest.raises(ImageError, match="expected"):
            image_model.edit(images, {"Hat": True})


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x: model.set_attribute(x, "Hatt"),
        lambda model, x: model.edit(x, {"Young": True, "Hatt": True}),
        lambda model, x: model.set_attribute(model.encode(x), "Hatt"),
        lambda model, x: model.subspace("Hatt"),
    ],
)
def test_an_unknown_attribute_is_answered_with_the_nearest(image_model, call):
    with pytest.raises(UnknownAttributeError) as caught:
        call(image_model, torch.rand(2, 3, 16, 16))
    assert str(caught.value) == ("unknown attribute 'Hatt': did you mean 'Hat'? This model knows: Smiling, Hat, Young")


# -- building ---------------------------------------------------------------------------------------------------------


def test_models_are_created_by_name():
    assert isinstance(create_model(ModelConfig(attributes=NAMES, shape=(3, 16, 16))), CSVAE)
    assert list_models() == ["cond-vae", "cond-vae-info", "csvae", "vae"]
    assert list_models("cond*") == ["cond-vae", "cond-vae-info"]
    assert list_models("x*") == []
    with pytest.raises(
        ConfigError, match=r"^unknown model 'csvea': did you mean 'csvae'\? Known: csvae, vae, cond-vae, cond-vae-info$"
    ):
        create_model(ModelConfig(attributes=NAMES, model="csvea"))
    with pytest.raises(ConfigError, match="^model: expected 'csvae' for CSVAE, got 'vae'$"):
        CSVAE(ModelConfig(attributes=NAMES, model="vae"))


def test_a_preprocessor_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="preprocessor.size: expected the 16 pixels of the model's shape, got 64"):
        CSVAE(ModelConfig(attributes=NAMES, shape=(3, 16, 16)), Preprocessor(size=64))
