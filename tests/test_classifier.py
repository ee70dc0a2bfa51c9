from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from csvae_hub.classifier import (
    ARCHITECTURES,
    AttributeClassifier,
    masked_cross_entropy,
    train_classifier,
)
from csvae_hub.data.base import AttributeData
from csvae_hub.errors import WeightsError, WeightsMismatchError
from csvae_hub.evaluation import classifier_metrics


def test_learns_what_can_be_seen(classifier, make_halves):
    metrics = classifier_metrics(classifier, make_halves(200, 1))
    assert list(metrics) == ["Left", "Right"]
    assert min(entry["accuracy"] for entry in metrics.values()) > 0.97
    assert min(entry["auc"] for entry in metrics.values()) > 0.99


def test_augmented_training_improves_epoch_by_epoch(make_halves):
    data = make_halves(128, 0)
    data = AttributeData(data.images, data.labels[:, :1], ["Light"])
    data.images[:] = np.where(data.labels[:, :, None, None] == 1, 200, 50)  # flips and shifts leave it
    losses = []
    train_classifier(data, epochs=3, width=4, batch_size=16, report=lambda epoch, loss: losses.append((epoch, loss)))
    assert [epoch for epoch, _ in losses] == [1, 2, 3]
    assert losses[2][1] < losses[0][1] / 2


def test_same_seed_same_weights_and_the_callers_random_state_is_kept(make_halves):
    data, before = make_halves(64, 0), torch.get_rng_state()
    first, second, other = (train_classifier(data, epochs=1, width=2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    images = data.batch(range(8))[0]
    assert torch.equal(first(images), second(images))
    assert not torch.equal(first(images), other(images))


def test_an_epoch_draws_by_the_weights(make_halves, monkeypatch):
    data, drawn = make_halves(40, 0).weighted(np.repeat([1.0, 0.0, 3.0], [10, 20, 10])), []
    batch = data.batch
    monkeypatch.setattr(data, "batch", lambda rows: drawn.extend(rows.tolist()) or batch(rows))
    train_classifier(data, epochs=20)
    counts = np.bincount(drawn, minlength=40)
    assert counts.sum() == 20 * 40
    assert counts[10:30].sum() == 0
    assert 2.4 < counts[30:].sum() / counts[:10].sum() < 3.7


def test_bfloat16_training_gives_float32_weights(make_halves):
    classifier = train_classifier(make_halves(32, 0), epochs=1, width=2, precision="bfloat16")
    assert {p.dtype for p in classifier.parameters()} == {torch.float32}


def test_a_missing_label_gives_no_gradient():
    logits = torch.zeros(2, 2, requires_grad=True)
    masked_cross_entropy(logits, torch.tensor([[1.0, torch.nan], [torch.nan, 0.0]])).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-0.25, 0.0], [0.0, 0.25]]
    assert masked_cross_entropy(logits, torch.full((2, 2), torch.nan)) == 0


@pytest.mark.parametrize("size", [16, 64, 128])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_is_trained_at_every_size(architecture, size, depth):
    classifier = AttributeClassifier(["A", "B", "C"], architecture=architecture, width=4, depth=depth, size=size)
    logits = classifier(torch.rand(2, 3, size, size))
    logits.square().sum().backward()
    assert logits.shape == (2, 3)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in classifier.parameters())


def test_pictures_of_any_side_are_seen_at_one_size(classifier, make_halves):
    images = make_halves(20, 1).batch(range(20))[0]
    large = torch.nn.functional.interpolate(images, (64, 64), mode="bilinear")
    assert torch.allclose(classifier.probabilities(large), classifier.probabilities(images), atol=0.1)
    assert classifier.feature_map(large).shape == (20, classifier.num_features, 2, 2)
    assert train_classifier(make_halves(8, 0), epochs=1, width=4).size == 16


def test_training_sees_recoloured_hidden_shifted_and_blurred_pictures(make_halves, monkeypatch):
    data, seen = make_halves(64, 0), []
    data.images[:] = 128
    data.images[..., 8] = 0
    forward = AttributeClassifier.forward
    monkeypatch.setattr(AttributeClassifier, "forward", lambda self, x: seen.append(x) or forward(self, x))
    train_classifier(data, epochs=4, width=4)
    rows = torch.cat(seen)
    places = rows.mean((1, 2)).argmin(1)
    assert len(places.unique()) > 2  # shifted
    levels = rows.amax((1, 2, 3)) - rows.amin((1, 2, 3))
    assert levels.std() > 0.05  # contrast, blur
    assert rows.mean((1, 2, 3)).std() > 0.03  # brightness
    assert 0 <= rows.min() < rows.max() <= 1
    plain = train_classifier(data, epochs=1, width=4, augment=False)
    assert torch.equal(seen[-1], data.batch(range(64))[0][[0] * 64])
    assert not plain.training


def test_probabilities_keep_the_mode_and_do_not_depend_on_the_batch(classifier, make_halves):
    images = make_halves(10, 2).batch(range(10))[0]
    classifier.train()
    whole, parts = classifier.probabilities(images), classifier.probabilities(images, batch_size=3)
    assert classifier.training
    classifier.eval()
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(whole, classifier(images).sigmoid(), atol=1e-5)
    assert not whole.requires_grad


def test_saved_and_loaded_agree_to_the_bit(classifier, make_halves, tmp_path):
    data = make_halves(8, 1)
    classifier.save(tmp_path / "classifier")
    loaded = AttributeClassifier.load(tmp_path / "classifier")
    images = data.batch(range(8))[0]
    assert not loaded.training
    assert (loaded.attributes, loaded.architecture) == (classifier.attributes, classifier.architecture)
    assert torch.equal(loaded(images), classifier(images))


def test_load_refuses_other_weights(classifier, tmp_path):
    with pytest.raises(WeightsError):
        AttributeClassifier.load(tmp_path)
    classifier.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model": "csvae"}))
    with pytest.raises(
        WeightsMismatchError, match="expected the weights of an attribute-classifier, got model 'csvae'"
    ):
        AttributeClassifier.load(tmp_path)
    for wrong in ({"width": 5}, {"width": "wide"}, {"attributes": []}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **wrong}))
        with pytest.raises(WeightsMismatchError, match="don't make an attribute-classifier"):
            AttributeClassifier.load(tmp_path)


def test_wrong_input_is_named(classifier, make_halves):
    with pytest.raises(ValueError, match=r"expected images of shape \(B, 3, S, S\), got \(2, 1, 16, 16\)"):
        classifier(torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match="expected at least one attribute, got none"):
        AttributeClassifier([])
    with pytest.raises(ValueError, match="expected width, depth and channels ≥ 1, got 0, 1, 3"):
        AttributeClassifier(["A"], width=0)
    with pytest.raises(ValueError, match="architecture: expected one of resnet, convnext, got 'vgg'"):
        AttributeClassifier(["A"], architecture="vgg")
    with pytest.raises(ValueError, match="size: expected a multiple of 8 pixels, got 20"):
        AttributeClassifier(["A"], size=20)
    with pytest.raises(ValueError, match="precision: expected 'float32' or 'bfloat16', got 'half'"):
        train_classifier(make_halves(4, 0), precision="half")
    with pytest.raises(ValueError, match=r"data: expected pictures \(N, C, S, S\) with N ≥ 1"):
        train_classifier(make_halves(4, 0).subset([]))
    vectors = AttributeData(np.zeros((4, 3), np.float32), np.zeros((4, 1), np.float32), ["Above"])
    with pytest.raises(ValueError, match=r"data: expected pictures .* got \(4, 3\)"):
        train_classifier(vectors)
