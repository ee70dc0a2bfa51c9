"""`help()` of what users call is complete in itself."""

from __future__ import annotations

import inspect
import re

import pytest

import csvae_hub
from csvae_hub import AttributeModel, FaceEditor, Latents
from csvae_hub.editing.editor import EncodedPhoto

CALLED = (
    "from_pretrained set_attribute edit encode decode reconstruct sample predict_attributes check_values index"
    " save_pretrained push_to_hub"
)
METHODS = {
    **{f"AttributeModel.{name}": getattr(AttributeModel, name) for name in CALLED.split()},
    **{
        f"{cls.__name__}.{name}": value
        for cls in (FaceEditor, EncodedPhoto, Latents)
        for name, value in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    },
    **{name: value for name in csvae_hub.__all__ if inspect.isfunction(value := getattr(csvae_hub, name))},
}


@pytest.mark.parametrize("name", METHODS)
def test_help_speaks_of_every_argument(name):
    words = inspect.getdoc(METHODS[name])
    arguments = set(inspect.signature(METHODS[name]).parameters) - {"self", "cls"}
    assert words
    assert {argument for argument in arguments if not re.search(rf"\b{argument}\b", words)} == set()
