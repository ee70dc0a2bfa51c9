"""What a plug-in's author runs."""

from csvae_mixer import MixerBackbone

from csvae_hub.backbones import list_backbones
from csvae_hub.testing import check_backbone


def test_it_is_a_backbone_for_pictures() -> None:
    shapes = check_backbone(MixerBackbone)
    assert shapes == [(1, 16, 16), (3, 16, 16), (1, 32, 32), (3, 32, 32), (1, 64, 64), (3, 64, 64)]


def test_csvae_hub_finds_it() -> None:
    assert "mixer" in list_backbones()
