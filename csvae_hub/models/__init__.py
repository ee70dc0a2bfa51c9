"""The models, and their registry."""

from __future__ import annotations

from fnmatch import fnmatchcase

from csvae_hub import hub
from csvae_hub.config import ModelConfig
from csvae_hub.errors import ConfigError, did_you_mean
from csvae_hub.models.cond_vae import CondVAE
from csvae_hub.models.cond_vae_info import CondVAEInfo
from csvae_hub.models.csvae import CSVAE
from csvae_hub.models.editable import AttributeModel
from csvae_hub.models.latents import Latents
from csvae_hub.models.vae import VAE

__all__ = ["CSVAE", "VAE", "AttributeModel", "CondVAE", "CondVAEInfo", "Latents", "create_model", "list_models"]

_MODELS: dict[str, type[AttributeModel]] = {cls.name: cls for cls in (CSVAE, VAE, CondVAE, CondVAEInfo)}


def create_model(config: ModelConfig) -> AttributeModel:
    """Builds the untrained model that `config.model` names.

    Raises:
        ConfigError: no such model.
    """
    if config.model not in _MODELS:
        known = ", ".join(_MODELS)
        raise ConfigError(f"unknown model {config.model!r}:{did_you_mean(config.model, _MODELS)} Known: {known}")
    return _MODELS[config.model](config)


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """The names that match a shell pattern, of models to create or, with `pretrained`, of packaged weights."""
    names = hub.list_packaged() if pretrained else sorted(_MODELS)
    return [name for name in names if fnmatchcase(name, pattern)]
