from __future__ import annotations

import pytest

from csvae_hub.config import ModelConfig
from csvae_hub.errors import ConfigError
from csvae_hub.text import is_printable, printable


@pytest.mark.parametrize(
    "character", [chr(i) for i in (0, 9, 10, 13, 27, 127, 133, 155, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
)
def test_unsafe_characters_are_escaped(character):
    shown = printable(f"a{character}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert not is_printable(character)
    assert shown[1:-1].encode().decode("unicode_escape") == character


@pytest.mark.parametrize("text", ["Smiling", "Größe 眼鏡 🙂", "a b", "C:\\new", ""])
def test_other_text_stays(text):
    assert printable(text) == text
    assert is_printable(text)


@pytest.mark.parametrize("name", ["Smil\x1bing", "a\nb", "\u202egnilimS", "\ud800"])
def test_a_model_has_no_attribute_that_can_t_be_printed(name):
    expected = "names without control characters or changes of writing direction, got"
    with pytest.raises(ConfigError, match=f"^attributes: expected {expected}") as caught:
        ModelConfig(("Smiling", name))
    assert is_printable(str(caught.value))
    assert ModelConfig(("Größe 眼鏡",)).attributes == ("Größe 眼鏡",)
