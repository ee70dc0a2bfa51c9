"""A module at rest gives what its layers give one by one, whatever changed since, and leaves its tensors alone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from csvae_hub import CSVAE
from csvae_hub.backbones.layers import ConvBlock, ResidualBlock

BLOCKS = {
    "halving": lambda: ConvBlock(3, 5, stride=2),
    "doubling": lambda: ConvBlock(3, 5, upsample=True, condition_dim=2),
    "modulated": lambda: ConvBlock(3, 3, condition_dim=2),
    "residual": lambda: ResidualBlock(3),
    "residual modulated": lambda: ResidualBlock(3, condition_dim=2),
}
X, CONDITION = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).sin(), torch.tensor([[1.0, -2.0], [0.3, 0.1]])


@pytest.fixture(params=BLOCKS)
def block(request):
    """A block whose parameters and moments are random."""
    torch.manual_seed(0)
    made = BLOCKS[request.param]().eval()
    scramble(made)
    return made


def scramble(block):
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape) if "var" in name else 0.3 * torch.randn(tensor.shape))


def plain(block):
    """The block's layers one by one: what it gives where gradients are kept."""
    assert torch.is_grad_enabled()
    return block(X, CONDITION).detach()


def at_rest(block, x=X):
    with torch.no_grad():
        return block(x, CONDITION)


def folds(block):
    return [one.fold for one in block.modules() if hasattr(one, "fold")]


def test_folded_and_plain_agree(block):
    expected = plain(block)
    given = X.clone()
    torch.testing.assert_close(at_rest(block, given), expected, rtol=1e-5, atol=1e-5)
    assert all(fold._made is not None for fold in folds(block))
    assert torch.equal(given, X)


CHANGES = {
    "in place": scramble,
    "loaded": lambda block: block.load_state_dict({k: v / 2 for k, v in block.state_dict().items()}),
    "other storage": lambda block: [setattr(one, "data", one * 2) for one in block.parameters()],
    "there and back": lambda block: block.half().float(),
    "float64 and back": lambda block: (scramble(block.double()), block.float()),
    "new parameter": lambda block: [setattr(m, "weight", nn.Parameter(m.weight * 2)) for m in norms(block)],
    "moments": lambda block: [m.running_mean.add_(1) for m in norms(block)],
}


def norms(block):
    return [one for one in block.modules() if isinstance(one, nn.BatchNorm2d)]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_tensors_is_seen(block, change):
    before = at_rest(block)
    change(block)
    after = at_rest(block)
    torch.testing.assert_close(after, plain(block), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-6)


def test_training_goes_on_after_rest(block):
    other = copy.deepcopy(block)
    at_rest(block)
    for one in (block, other):
        one.train()
        optimizer = torch.optim.SGD(one.parameters(), 1e-3)
        one(X, CONDITION).square().sum().backward()
        optimizer.step()
        one.eval()
    for mine, theirs in zip(block.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(at_rest(block), plain(other), rtol=1e-5, atol=1e-5)


def test_nothing_is_made_anew_while_nothing_changes_nor_kept_in_copies(block):
    at_rest(block)
    made = [fold._made for fold in folds(block)]
    with torch.inference_mode():
        block(X, CONDITION)
    at_rest(block)
    assert all(fold._made is one for fold, one in zip(folds(block), made, strict=True))
    for one in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert all(fold._made is None for fold in folds(one))
        assert torch.equal(at_rest(one), at_rest(block))
    assert not any("fold" in name for name in block.state_dict())


def test_weights_made_in_inference_mode_are_followed():
    with torch.inference_mode():
        block = ConvBlock(3, 5).eval()
        before = block(X)
        block.norm.running_mean.add_(1)
        assert not torch.allclose(block(X), before)


def test_a_model_that_was_used_is_saved_as_it_was(tmp_path):
    model = CSVAE.from_pretrained("celeba-64", device="cpu")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.rand(2, 3, 64, 64)
    edited = model.set_attribute(x, "Smiling", 1.5)
    model.save_pretrained(tmp_path)
    again = CSVAE.from_pretrained(tmp_path, device="cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(again.set_attribute(x, "Smiling", 1.5), edited)
    torch.testing.assert_close(
        model.set_attribute(x.requires_grad_(), "Smiling", 1.5).detach(), edited, rtol=0, atol=1e-5
    )


def test_pictures_decoded_part_by_part_are_those_decoded_at_once(monkeypatch):
    model = CSVAE.from_pretrained("celeba-64", device="cpu")
    latents = model.encode(torch.rand(5, 3, 64, 64))
    whole = model.decode(latents)
    sizes = []
    model.backbone.pixels.register_forward_hook(lambda _, __, out: sizes.append(len(out)))
    monkeypatch.setattr("csvae_hub.models.editable.PIXELS_AT_ONCE", 2 * 64**2)
    torch.testing.assert_close(model.decode(latents), whole, rtol=0, atol=1e-5)
    assert sizes == [2, 2, 1]
