from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from csvae_hub.config import BackboneConfig, ModelConfig
from csvae_hub.errors import ImageError, UnknownAttributeError, UnknownModelError
from csvae_hub.models import create_model
from csvae_hub.transforms import RandomSetAttribute, counterfactuals

PASTES = ("changed", "difference", "whole")


def faces(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def build(**fields):
    """A tiny model with decided subspaces, whose edits are as large as its pictures."""
    torch.manual_seed(0)
    backbone = BackboneConfig(width=4, features=16)
    fields = {"shape": (3, 16, 16), "backbone": backbone, "z_dim": 8} | fields
    model = create_model(ModelConfig(attributes=("Smiling", "Hat"), **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.eval().q_y[-1].bias -= model.q_y(
            model.backbone.encode(faces(40, *model.config.shape))
        ).base_dist.logits.mean(0)
    return model


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def pil(mode, size=(24, 20)):
    return Image.fromarray((faces(size[1], size[0], 4) * 255).numpy().astype(np.uint8), "RGBA").convert(mode)


KINDS = {
    "PIL L": pil("L"),
    "PIL LA": pil("LA"),
    "PIL RGB": pil("RGB"),
    "PIL RGBA": pil("RGBA"),
    "uint8": (faces(3, 20, 24) * 255).byte(),
    "uint8 batch": (faces(4, 3, 16, 16) * 255).byte(),
    "float": faces(3, 20, 24),
    "grey": faces(1, 16, 16),
    "half batch": faces(2, 3, 40, 40).half(),
    "double": faces(3, 16, 16).double(),
    "tv_tensors.Image": tv_tensors.Image((faces(3, 20, 24) * 255).byte()),
    "tv_tensors.Image batch": tv_tensors.Image(faces(2, 3, 20, 24)),
}


def pixels(picture):
    return (
        torch.from_numpy(np.array(picture)) if isinstance(picture, Image.Image) else picture.as_subclass(torch.Tensor)
    )


@pytest.mark.parametrize("paste", PASTES)
@pytest.mark.parametrize("picture", KINDS.values(), ids=KINDS)
def test_kind_size_and_type_stay(model, picture, paste):
    before = pixels(picture).clone()
    edited = RandomSetAttribute(model, "Hat", 1.5, p=1.0, paste=paste)(picture)
    assert type(edited) is type(picture)
    assert (pixels(edited).shape, pixels(edited).dtype) == (before.shape, before.dtype)
    assert not torch.equal(pixels(edited), before)
    assert torch.equal(pixels(picture), before)  # the caller's own picture
    if isinstance(picture, Image.Image):
        assert edited.mode == picture.mode
        if picture.mode.endswith("A"):
            assert edited.getchannel("A").tobytes() == picture.getchannel("A").tobytes()


@pytest.mark.parametrize("picture", KINDS.values(), ids=KINDS)
def test_without_probability_nothing_changes(model, picture):
    assert torch.equal(pixels(RandomSetAttribute(model, "Hat", p=0.0)(picture)), pixels(picture))


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_each_example_is_drawn_on_its_own(model, dtype):
    images = faces(400, 3, 16, 16)
    images = (255 * images).byte() if dtype == torch.uint8 else images.double() / 3  # thirds have bits beyond float32
    edited = RandomSetAttribute(model, "Hat", 1.5, p=0.3, paste="whole")(images)
    left = (edited == images).flatten(1).all(1)
    assert 240 < left.sum() < 320
    alone = RandomSetAttribute(model, "Hat", 1.5, p=1.0, paste="whole")
    i, j = (~left).nonzero()[:2, 0]
    for row in (i, j):
        torch.testing.assert_close(edited[row], alone(images[row]), atol=1 if dtype == torch.uint8 else 1e-5, rtol=0)


@pytest.mark.parametrize("paste", PASTES)
def test_whole_numbers_are_the_nearest_to_what_floats_become(model, paste):
    images = (255 * faces(4, 3, 24, 24)).byte()
    edit = RandomSetAttribute(model, "Hat", 1.5, p=1.0, paste=paste)
    assert torch.equal(edit(images), (255 * edit(images / 255)).round().byte())


def test_the_rest_of_a_sample_passes_through(model):
    rest = {
        "label": torch.tensor(1.0),
        "boxes": tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="XYXY", canvas_size=(16, 16)),
        "mask": tv_tensors.Mask(torch.ones(16, 16)),
        "name": "a.png",
    }
    image = tv_tensors.Image(faces(3, 16, 16))
    edited = RandomSetAttribute(model, "Hat", 1.5, p=1.0)({**rest, "image": image})
    assert not torch.equal(edited["image"], image)
    assert all(edited[key] is thing for key, thing in rest.items())


def test_pictures_of_one_sample_share_the_draw(model):
    images = faces(8, 3, 16, 16)
    image = tv_tensors.Image(images)
    for _ in range(3):
        one, other = RandomSetAttribute(model, "Hat", "random", p=0.5)(image, image)
        assert torch.equal(one, other)


@pytest.mark.parametrize("value", [True, False, -0.5, (3.0, -1.0), Image.new("RGB", (16, 16), "red")], ids=str)
def test_whole_is_what_the_model_gives(model, value):
    images = faces(3, 3, 16, 16)
    expected = model.set_attribute(images, "Hat", value)
    assert torch.equal(RandomSetAttribute(model, "Hat", value, p=1.0, paste="whole")(images), expected)


def test_flip_sets_the_other_class(model):
    images = faces(40, 3, 16, 16)
    present = model.predict_attributes(images)["Smiling"] > 0.5
    assert 0 < present.sum() < 40
    versions = [model.set_attribute(images, "Smiling", value) for value in (True, False)]
    expected = torch.where(present[:, None, None, None], versions[1], versions[0])
    edited = RandomSetAttribute(model, "Smiling", "flip", p=1.0, paste="whole")(images)
    torch.testing.assert_close(edited, expected)


@pytest.mark.parametrize("paste", PASTES)
def test_random_tosses_between_the_counterfactuals(model, paste):
    images = faces(200, 3, 16, 16)
    absent, present = counterfactuals(model, images, "Hat", paste=paste)
    edited = RandomSetAttribute(model, "Hat", "random", p=1.0, paste=paste)(images)
    heads = (edited - present).abs().flatten(1).amax(1) < 1e-5
    tails = (edited - absent).abs().flatten(1).amax(1) < 1e-5
    assert torch.equal(heads, ~tails)
    assert 70 < heads.sum() < 130


def test_absent_in_a_group_is_another_member():
    torch.manual_seed(0)
    names = ("Happy", "Sad", "Angry")
    backbone = BackboneConfig(width=4, features=16)
    fields = {"shape": (3, 16, 16), "backbone": backbone, "z_dim": 8, "exclusive": (names,)}
    model = create_model(ModelConfig(attributes=names, **fields)).eval()
    images, seen = faces(6, 3, 16, 16), set()
    versions = {name: model.set_attribute(images, name, True) for name in names}
    for _ in range(20):
        edited = RandomSetAttribute(model, "Happy", "random", p=1.0, paste="whole")(images)
        for picture, *options in zip(edited, *versions.values(), strict=True):
            (found,) = (name for name, p in zip(names, options, strict=True) if torch.allclose(picture, p, atol=1e-5))
            seen.add(found)
    assert seen == set(names)


def test_function_is_asked_for_each_example(model):
    values = iter([False, 2.0, "flip", (1.0, 1.0)])
    images = faces(4, 3, 16, 16)
    edited = RandomSetAttribute(model, "Hat", lambda: next(values), p=1.0, paste="whole")(images)
    present = model.predict_attributes(images[2])["Hat"].item() > 0.5
    for row, value in enumerate((False, 2.0, not present, (1.0, 1.0))):
        torch.testing.assert_close(edited[row], model.set_attribute(images[row], "Hat", value), atol=5e-5, rtol=0)


def test_samples_differ_and_follow_the_seed(model):
    edit, images = RandomSetAttribute(model, "Hat", "sample", p=1.0), faces(1, 3, 16, 16).expand(3, -1, -1, -1)
    first, second = edit(images), edit(images)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(edit(images), first)


def test_difference_adds_what_the_decoder_changes(model):
    images = 0.25 + 0.5 * faces(3, 3, 16, 16)
    change = model.set_attribute(images, "Hat", True) - model.reconstruct(images)
    edited = RandomSetAttribute(model, "Hat", True, p=1.0, paste="difference")(images)
    torch.testing.assert_close(edited, (images + change).clamp(0, 1))


def test_changed_pastes_the_decoder_where_it_changes_most_and_nothing_elsewhere(model, monkeypatch):
    images = faces(2, 3, 16, 16)
    before = torch.full_like(images, 0.5)
    after = before.clone()
    after[0, :, :4, :4] = 1.0  # the largest change, and one of a tenth of it
    after[0, :, 12:14, 12:14] = 0.55
    after[1, 0, 8, 8] = 0.51  # below the floor
    decoded = iter([before, after])
    monkeypatch.setattr(type(model), "decode", lambda *_: next(decoded))
    edited = RandomSetAttribute(model, "Hat", True, p=1.0)(images)
    assert torch.equal(edited[0, :, :4, :4], after[0, :, :4, :4])
    assert torch.equal(edited[0, :, 9:], images[0, :, 9:])
    assert torch.equal(edited[1], images[1])


@pytest.mark.parametrize("paste", PASTES)
def test_nothing_changes_beside_the_square_that_the_model_sees(model, paste):
    image = faces(3, 20, 40)
    edited = RandomSetAttribute(model, "Hat", 2.0, p=1.0, paste=paste)(image)
    assert torch.equal(edited[..., :10], image[..., :10])
    assert torch.equal(edited[..., 30:], image[..., 30:])
    assert not torch.equal(edited, image)


@pytest.mark.parametrize("picture", KINDS.values(), ids=KINDS)
def test_counterfactuals_are_deterministic_and_of_the_same_kind(model, picture):
    absent, present = counterfactuals(model, picture, "Hat")
    assert type(absent) is type(present) is type(picture)
    assert pixels(absent).dtype == pixels(picture).dtype
    assert not torch.equal(pixels(absent), pixels(present))
    again = counterfactuals(model, picture, "Hat")
    assert torch.equal(pixels(again[0]), pixels(absent))
    assert torch.equal(pixels(again[1]), pixels(present))


def test_counterfactuals_take_other_values(model):
    images = faces(2, 3, 16, 16)
    versions = counterfactuals(model, images, "Hat", values=(0.5, (1.0, 2.0)), paste="whole")
    for version, value in zip(versions, (0.5, (1.0, 2.0)), strict=True):
        assert torch.equal(version, model.set_attribute(images, "Hat", value))


@pytest.mark.parametrize("kind", ["vae", "cond-vae", "cond-vae-info"])
def test_siblings_edit_too(kind):
    sibling, images = build(model=kind), faces(4, 3, 16, 16)
    with torch.no_grad():
        for buffer in sibling.buffers():
            if buffer.is_floating_point() and "class_means" in dict(sibling.named_buffers()):
                buffer.add_(torch.rand_like(buffer))
    assert not torch.equal(RandomSetAttribute(sibling, "Hat", "random", p=1.0)(images), images)


def test_pipeline_neither_holds_nor_changes_the_model(model):
    edit = RandomSetAttribute(model, "Hat", p=1.0)
    pipeline = v2.Compose([v2.Resize(16), edit]).train()
    threads = torch.get_num_threads()
    scale = torch.ones((), requires_grad=True)
    (pipeline(faces(2, 3, 20, 20)) * scale).sum().backward()
    assert scale.grad is not None
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert list(pipeline.parameters()) == []
    assert torch.get_num_threads() == threads
    assert copy.deepcopy(pipeline).transforms[1].model is model
    assert str(edit) == "RandomSetAttribute(name=Hat, value=flip, p=1.0, paste=changed)"


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("by_name", [False, True])
def test_pickled_and_back_it_draws_the_same(model, folder, by_name):
    edit, images = RandomSetAttribute(folder if by_name else model, "Hat", "sample"), faces(8, 3, 16, 16)
    first = edit(images)
    data = pickle.dumps(edit)
    assert by_name == (len(data) < 2_000)  # as its name, also once it's loaded
    torch.manual_seed(1)
    assert torch.equal(pickle.loads(data)(images), first)


def test_named_model_is_loaded_when_first_needed():
    edit = RandomSetAttribute("no-such-model", "Hat", p=1.0)
    with pytest.raises(UnknownModelError, match="no-such-model"):
        edit(faces(3, 16, 16))


def test_named_model_is_loaded_once(folder):
    edit = RandomSetAttribute(str(folder), "Hat")
    assert edit.model is edit.model
    assert not edit.model.training


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on, of any fork beside threads
def test_workers_draw_differently_and_follow_the_seed_however_they_start(model, folder):
    def epochs(model, start):
        loader = DataLoader(
            [faces(3, 16, 16)] * 16,  # type: ignore[arg-type]
            batch_size=4,
            num_workers=2,
            collate_fn=v2.Compose([default_collate, RandomSetAttribute(model, "Hat", "sample", p=0.8)]),
            generator=torch.Generator().manual_seed(5),
            multiprocessing_context=start,
            persistent_workers=True,
        )
        return [list(loader) for _ in range(2)]

    (first, second), (again, _) = epochs(model, "fork"), epochs(folder, "spawn")
    torch.testing.assert_close(first, again)
    assert not torch.equal(first[0], first[1])  # the first batches of the two workers
    assert not torch.equal(torch.cat(first), torch.cat(second))


SCALAR = {"label": torch.tensor(1), "image": faces(3, 16, 16)}


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (
            faces(3, 16, 16) * 2 - 1,
            r"expected a float tensor in \[0, 1\].*got values from -.*rescale with \(images \+ 1",
        ),
        (faces(4, 16, 16), r"got shape \(1, 4, 16, 16\): drop the alpha channel"),
        (faces(16, 16), r"expected an image \(C, H, W\) or a batch .*got shape \(16, 16\)"),
        (SCALAR, r"got shape \(\): the first tensor of a sample is taken for the image.*: wrap it"),
        (tv_tensors.Video(faces(2, 3, 16, 16)), "expected pictures, got a video: edit it frame by frame"),
        (pil("P"), r"expected a PIL image of mode L, LA, RGB, RGBA, got P: convert\('RGB'\)"),
        (faces(3, 4, 4), "expected a picture of at least 8×8 pixels"),
    ],
)
def test_what_is_no_picture_is_refused(model, picture, message):
    with pytest.raises(ImageError, match=message):
        RandomSetAttribute(model, "Hat", p=1.0)(picture)


def test_batches_of_two_sizes_are_refused(model):
    images = [tv_tensors.Image(faces(n, 3, 16, 16)) for n in (2, 3)]
    with pytest.raises(ValueError, match=r"expected pictures of one batch size in a sample, got \[2, 3\]"):
        RandomSetAttribute(model, "Hat")(images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 1.5}, "p: expected a probability from 0 to 1, got 1.5"),
        ({"value": "filp"}, "value: expected flip, random, sample or a value that is no text, got 'filp'"),
        ({"paste": "soft"}, "paste: expected changed, difference, whole, got 'soft'"),
        ({"name": "Hta"}, "unknown attribute 'Hta': did you mean 'Hat'"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomSetAttribute(**{"model": model, "name": "Hat"} | arguments)


@pytest.mark.parametrize(
    "make",
    [lambda model: RandomSetAttribute(model, "Hat"), lambda model: counterfactuals(model, faces(3, 16, 16), "Hat")],
)
def test_models_that_cannot_do_it_are_refused(make):
    with pytest.raises(ValueError, match="expected one in eval mode, got one in training mode: call"):
        make(build().train())
    vectors = build(shape=(5,), backbone=BackboneConfig(name="mlp", width=8, features=16))
    with pytest.raises(ValueError, match="expected one of images, got one of vectors of 5 numbers"):
        make(vectors)


def test_counterfactuals_say_what_they_expect(model):
    with pytest.raises(ImageError, match="expected a PIL image or a tensor .*got str"):
        counterfactuals(model, "photo.jpg", "Hat")
    with pytest.raises(UnknownAttributeError, match="did you mean 'Hat'"):
        counterfactuals(model, faces(3, 16, 16), "Hta")


def test_function_gives_no_other_words(model):
    with pytest.raises(ValueError, match="value: expected flip, random, sample .*got 'filp'"):
        RandomSetAttribute(model, "Hat", lambda: "filp", p=1.0)(faces(3, 16, 16))
