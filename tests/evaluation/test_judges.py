from __future__ import annotations

import numpy as np
import pytest
import torch

from csvae_hub.classifier import ARCHITECTURES, AttributeClassifier, train_classifier
from csvae_hub.data import SyntheticFaces
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import DataError, WeightsError
from csvae_hub.evaluation import Judges, attribute_change, classifier_metrics, train_judges
from csvae_hub.evaluation.judges import doubt, judges_record


class Sceptic:
    """A judge of another architecture that takes flat halves, which only an edit leaves, for the opposite."""

    architecture = "sceptic"

    def __init__(self, member):
        self.member, self.attributes = member, member.attributes

    def read(self, images):
        probabilities, features = self.member.read(images)
        flat = torch.stack([half.std((1, 2, 3)) < 1e-3 for half in images.split(8, -1)], 1)
        return torch.where(flat.any(1, keepdim=True), 1 - probabilities, probabilities), features

    def probabilities(self, images):
        return self.read(images)[0]


def test_the_stricter_judge_counts(judges, faultless, make_halves):
    data, (member, _) = make_halves(100, 5), judges.members
    result = attribute_change(faultless(), data, judges)
    assert result["wished"] > 0.97
    for members in ([member, Sceptic(member)], [Sceptic(member), member]):
        result = attribute_change(faultless(), data, Judges(members))
        assert result["wished"] == result["worst"] < 0.03
        assert result["others"] > 0.9
        assert result["before"] < 0.03


def test_one_judge_at_chance_is_enough_to_doubt():
    labels = np.array([0, 1] * 50, dtype=np.float32)
    knows, guesses = labels, np.full(100, 0.5, dtype=np.float32)
    assert doubt(np.stack([knows, knows]), labels) is None
    for scores in ([knows, guesses], [guesses, knows]):
        assert "its ROC AUC on unedited pictures is 0.50" in str(doubt(np.stack(scores), labels))


def test_they_are_unlike_and_live_in_one_folder(make_halves, tmp_path):
    lines = []
    judges = train_judges(make_halves(40, 0), epochs=2, seed=3, progress=lines.append)
    assert [member.architecture for member in judges.members] == list(ARCHITECTURES) == ["resnet", "convnext"]
    assert lines[0] == "training the judge resnet: 2 epochs of 40 pictures"
    assert lines[-1].startswith("judge convnext: epoch 2 of 2, loss ")
    kinds = [{type(module) for module in member.modules()} for member in judges.members]
    assert not any(torch.nn.BatchNorm2d in kind for kind in kinds)
    judges.save(tmp_path / "judges")
    loaded = Judges.load(tmp_path / "judges")
    images = make_halves(8, 1).batch(range(8))[0]
    for ours, theirs in zip(judges.read([images])[0], loaded.read([images])[0], strict=True):
        assert torch.equal(ours, theirs)
    again = train_judges(make_halves(40, 0), epochs=2, seed=3)
    assert torch.equal(again.read([images])[0], judges.read([images])[0])


def test_the_members_of_a_group_are_drawn_alike(monkeypatch):
    images, members = np.zeros((40, 1, 16, 16), np.uint8), np.repeat([0, 1, 2], [30, 8, 2])
    data = AttributeData(images, np.eye(3, dtype=np.float32)[members], ("Happy", "Sad", "Angry"))
    seen = []
    monkeypatch.setattr(
        "csvae_hub.evaluation.judges.train_classifier",
        lambda data, **options: seen.append(data) or AttributeClassifier(data.attributes, size=16, channels=1),
    )
    train_judges(data, [data.attributes])
    for drawn in seen:
        shares = np.bincount(members, drawn.weights.numpy()) / len(data)
        np.testing.assert_allclose(shares, [1 / 3] * 3, atol=1e-3)
    train_judges(data)
    assert [drawn.weights is None for drawn in seen] == [False, False, True, True]
    with pytest.raises(DataError, match="expected examples of each class to balance, got one without"):
        train_judges(data.subset(range(38)), [data.attributes])


def test_a_folder_of_one_judge_is_refused(judges, tmp_path):
    with pytest.raises(WeightsError):
        Judges.load(tmp_path)
    judges.save(tmp_path)
    AttributeClassifier(["Other"], architecture="convnext", width=4, size=16).save(tmp_path / "convnext")
    with pytest.raises(WeightsError, match="expected judges that read the same attributes, in one order"):
        Judges.load(tmp_path)
    with pytest.raises(ValueError, match="at least one"):
        Judges([])


def test_answers_do_not_depend_on_the_batches(judges, make_halves):
    images = make_halves(20, 2).batch(range(20))[0]
    probabilities, features = judges.read(iter(images.split(6)))
    assert probabilities.shape == (2, 20, 2)
    for j, member in enumerate(judges.members):
        assert torch.allclose(probabilities[j], member.probabilities(images), atol=1e-5)
        assert features[j].shape == (20, member.num_features)


def test_they_read_drawn_faces():
    train, test = SyntheticFaces(600, seed=0, image_size=16), SyntheticFaces(200, seed=1, image_size=16)
    judges = Judges(
        train_classifier(train, epochs=5, architecture=name, width=16, batch_size=24, learning_rate=4e-3)
        for name in ARCHITECTURES
    )
    record = judges_record(judges, test)
    assert set(record["members"]) == {"resnet", "convnext"}
    for name, entry in record["attributes"].items():
        assert entry["auc"] == min(found[name]["auc"] for found in record["members"].values())
    assert record["attributes"]["Hair"]["auc"] > 0.8
    assert record["attributes"]["Wearing_Hat"]["auc"] > 0.8


def test_metrics_of_missing_labels_are_none(judges, make_halves):
    data = make_halves(20, 1)
    labels = data.labels.copy()
    labels[:, 0], labels[:, 1] = np.nan, 1
    metrics = classifier_metrics(judges.members[0], AttributeData(data.images, labels, data.attributes))
    assert metrics["Left"] == {"accuracy": None, "auc": None}
    assert metrics["Right"]["accuracy"] is not None
    assert metrics["Right"]["auc"] is None
