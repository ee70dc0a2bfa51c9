"""Weights folders and Hub repos: found by name, read and written. Knows no model class.

`csvae_hub.hub.download`, `.upload` and `.card` are imported only when they are needed: huggingface_hub takes as long to
import as the rest of a cold start.
"""

from csvae_hub.hub.folder import (
    CARD,
    COMPANIONS,
    CONFIG,
    HUB,
    LOCAL,
    PACKAGED,
    PICTURE,
    PREPROCESSOR,
    REQUIRED,
    WEIGHTS,
    list_packaged,
    load_tensors,
    load_weights,
    read_config,
    read_model_config,
    replacing,
    resolve,
    save_weights,
    upgraded,
    write_json,
)
from csvae_hub.hub.safe_files import inside, read_json

__all__ = [
    "CARD",
    "COMPANIONS",
    "CONFIG",
    "HUB",
    "LOCAL",
    "PACKAGED",
    "PICTURE",
    "PREPROCESSOR",
    "REQUIRED",
    "WEIGHTS",
    "inside",
    "list_packaged",
    "load_tensors",
    "load_weights",
    "read_config",
    "read_json",
    "read_model_config",
    "replacing",
    "resolve",
    "save_weights",
    "upgraded",
    "write_json",
]
