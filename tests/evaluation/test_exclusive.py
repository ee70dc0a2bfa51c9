"""Edits inside exclusive groups: from each member to each, by judges that err in known ways."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from csvae_hub.data.base import AttributeData
from csvae_hub.evaluation import Judges, attribute_change, evaluate, train_judges
from csvae_hub.evaluation.exclusive import group_change, group_probes, member_of
from csvae_hub.models import Latents, create_model

NAMES = ("Happy", "Hat", "Sad", "Angry")
GROUP = [0, 2, 3]


class Stub(torch.nn.Module):
    """Pictures whose first three pixels hold the member; who isn't Angry comes out as Sad where that is wished."""

    attributes = NAMES
    config = SimpleNamespace(
        is_image=True, shape=(1, 16, 16), model="csvae", attributes=NAMES, groups=(tuple(GROUP),), exclusive=()
    )
    device = torch.device("cpu")

    def encode(self, x, y=None):
        return Latents(x, x.new_zeros(len(x), 4, 2), x.new_zeros(len(x), 4), NAMES)

    def decode(self, latents):
        return latents.z

    def edit(self, latents, values, *, generator=None):
        z = latents.z.clone()
        for name, value in values.items():
            if name in ("Happy", "Sad", "Angry") and value:
                rows = z[:, 0, 0, 2] == 0 if name == "Angry" else torch.ones(len(z), dtype=torch.bool)
                z[rows, 0, 0, :3] = 0
                z[rows, 0, 0, {"Happy": 0, "Sad": 1, "Angry": 1}[name]] = 1
        return replace(latents, z=z)


class Reader:
    """Reads the first pixels; a blind one calls everything Happy."""

    attributes = NAMES

    def __init__(self, architecture, blind=False):
        self.architecture, self.blind = architecture, blind

    def read(self, images):
        p = torch.full((len(images), 4), 0.3)
        p[:, GROUP] = images[:, 0, 0, :3] * 0.2 + 0.1  # none above a half: the likeliest counts
        if self.blind:
            p[:, 0] = 0.9
        return p, images.flatten(1)[:, :4]


def pictures(counts=(6, 4, 2)):
    classes = np.repeat(np.arange(3), counts)
    images = np.zeros((len(classes), 1, 16, 16), np.uint8)
    images[np.arange(len(classes)), 0, 0, classes] = 255
    labels = np.zeros((len(classes), 4), np.float32)
    labels[np.arange(len(classes)), np.array(GROUP)[classes]] = 1
    labels[::2, 1] = 1
    return AttributeData(images, labels, NAMES)


def test_each_member_is_set_on_each_and_the_likeliest_counts():
    data, model = pictures(), Stub()
    judges = Judges([Reader("resnet"), Reader("blind", blind=True)])
    (found,) = group_change(model, data, judges, model.encode(data.batch(range(12))[0]))
    assert found["members"] == ["Happy", "Sad", "Angry"]
    assert found["counts"] == {"Happy": 6, "Sad": 4, "Angry": 2}
    seeing, blind = found["judges"]["resnet"], found["judges"]["blind"]
    assert seeing["own_confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert seeing["own_accuracy"] == 1
    assert seeing["edits"] == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert seeing["to"] == {"Happy": 1, "Sad": 1, "Angry": 0}
    assert seeing["accuracy"] == pytest.approx(2 / 3)
    assert blind["own_accuracy"] == blind["accuracy"] == pytest.approx(1 / 3)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["below_own"] == pytest.approx(1 / 3)  # the seeing judge's


def test_a_member_without_pictures_and_missing_labels_are_passed_over():
    data, model = pictures((6, 4, 0)), Stub()
    data.labels[0, 0] = np.nan
    assert member_of(data.labels[:, GROUP]).tolist() == [-1, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    (found,) = group_change(model, data, Judges([Reader("resnet")]), model.encode(data.batch(range(10))[0]))
    assert found["counts"] == {"Happy": 5, "Sad": 4, "Angry": 0}
    assert found["judges"]["resnet"]["edits"][2] == [None, None, None]
    assert found["judges"]["resnet"]["own_accuracy"] == 1


def test_members_of_a_group_are_set_to_present_alone_and_the_likeliest_counts():
    data, model = pictures((30, 30, 30)), Stub()
    found = attribute_change(model, data, Judges([Reader("resnet")]))["attributes"]
    assert found["Sad"]["to_absent"] is None
    assert found["Sad"]["to_present"]["count"] == 60
    wished = {name: found[name]["to_present"]["wished"] for name in ("Happy", "Sad", "Angry")}
    assert wished == {"Happy": 1, "Sad": 1, "Angry": 0}  # no answer is above a half
    assert found["Sad"]["to_present"]["before"] == 0
    assert found["Hat"]["to_absent"]["count"] == 45


def test_probes_read_the_member_from_z_that_tells_it_and_not_from_noise():
    torch.manual_seed(0)
    data, model = pictures((120, 60, 20)), Stub()
    y = torch.from_numpy(data.labels)
    telling = torch.cat([y[:, GROUP] * 3 + torch.randn(200, 3) * 0.1, torch.randn(200, 5)], 1)
    for z, sure in ((telling, True), (torch.randn(200, 8), False)):
        order = [torch.randperm(200) for _ in range(3)]
        latents = tuple(Latents(z[rows], torch.zeros(200, 4, 0), y[rows], NAMES) for rows in order)
        (found,) = group_probes(model, latents, tuple(data.labels[rows.numpy()] for rows in order))
        assert found["base_rate"] == pytest.approx(0.6)
        assert (found["logistic"] > 0.98) == sure
        if sure:
            assert found["mlp"] > 0.95


def test_the_evaluation_of_a_model_with_groups_has_them():
    from csvae_hub.config import BackboneConfig, ModelConfig

    torch.manual_seed(0)
    config = ModelConfig(
        attributes=NAMES,
        shape=(1, 16, 16),
        z_dim=4,
        backbone=BackboneConfig(width=4, features=8),
        exclusive=(("Happy", "Sad", "Angry"),),
    )
    model = create_model(config).eval()
    random = np.random.default_rng(0)

    def split():
        data = pictures((14, 12, 10))
        images = np.clip(data.images.astype(int) + random.integers(0, 60, data.images.shape), 0, 255)
        return AttributeData(images.astype(np.uint8), data.labels, NAMES)

    splits = [split() for _ in range(3)]
    judges = train_judges(splits[0], model.config.exclusive, epochs=1)
    result = evaluate(model, *splits, judges)
    (found,) = result["groups"]
    assert found["members"] == ["Happy", "Sad", "Angry"]
    assert set(found["judges"]) == {"resnet", "convnext"}
    assert found["z"]["base_rate"] == pytest.approx(14 / 36)
    assert 0 <= found["accuracy"] <= 1
