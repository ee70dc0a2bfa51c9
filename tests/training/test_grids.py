"""The grids of edited pictures and the squared error."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from csvae_hub.models.latents import Latents
from csvae_hub.training.grids import attribute_grid, squared_error, write_grid


class Painter:
    """Decodes w to the red channel and z to the green one: each picture says what its latents are."""

    attributes = ("A", "B")
    config = SimpleNamespace(groups=())

    def encode(self, images):
        y = images[:, :2, 0, 0]
        return Latents(images[:, 2:, 0, 0], y[:, :, None], y, self.attributes)

    def decode(self, latents):
        code = torch.cat([latents.w[:, :, 0], latents.z], 1)
        return code[:, :, None, None].expand(-1, 3, 2, 2)

    def edit(self, latents, values):
        for name, value in values.items():
            latents = latents.replace(name, torch.tensor([float(value)]))
        return latents


def test_the_grid_switches_each_attribute_of_each_picture():
    codes = torch.tensor([[0.0, 1.0, 0.3], [1.0, 1.0, 0.6]])
    grid = attribute_grid(Painter(), codes[:, :, None, None].expand(-1, 3, 2, 2))
    shown = grid[:, :, 0, 0].reshape(2, 4, 3)
    assert torch.equal(shown[:, 0], codes)
    assert torch.equal(shown[:, 1], codes)
    assert torch.equal(shown[0, 2:], torch.tensor([[1.0, 1.0, 0.3], [0.0, 0.0, 0.3]]))
    assert torch.equal(shown[1, 2:], torch.tensor([[0.0, 1.0, 0.6], [1.0, 0.0, 0.6]]))


def test_members_of_a_group_are_switched_on():
    painter = Painter()
    painter.config = SimpleNamespace(groups=((0, 1),))
    codes = torch.tensor([[1.0, 0.0, 0.3]])
    shown = attribute_grid(painter, codes[:, :, None, None].expand(-1, 3, 2, 2))[2:, :, 0, 0]
    assert torch.equal(shown, torch.tensor([[1.0, 0.0, 0.3], [1.0, 1.0, 0.3]]))


def test_the_file_has_a_row_a_picture(build, data, tmp_path):
    write_grid(build().model.eval(), data(), tmp_path / "new" / "grid.png", rows=3)
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        assert picture.width == pytest.approx(5 * 16, abs=20)
        assert picture.height == pytest.approx(3 * 16, abs=20)


@pytest.mark.parametrize("examples", [7, 512])
def test_the_squared_error_is_of_examples_spread_over_the_data(build, data, examples):
    model, every = build().model.eval(), data(200)
    x, _ = every.batch(torch.linspace(0, 199, min(200, examples)).long())
    expected = (model.decode(model.encode(x)) - x).square().mean()
    assert squared_error(model, every, examples) == pytest.approx(expected.item(), rel=1e-4)
