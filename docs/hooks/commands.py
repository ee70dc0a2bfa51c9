"""Writes the reference of the command line into cli.md, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
from mkdocs.structure.pages import Page

from csvae_hub.cli import main

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Replaces the mark on the page of the command line."""
    return markdown.replace(MARK, "\n".join(reference())) if page.file.src_uri == "cli.md" else markdown


def reference() -> Iterator[str]:
    """A section a command: its help, its usage and its options, line by line."""
    group = click.Context(main, info_name="csvae", **main.context_settings)
    for name in main.list_commands(group):
        command = main.get_command(group, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=group)
        words = " ".join(command.collect_usage_pieces(context))
        yield from (f"## csvae {name}", "", escaped(inspect.cleandoc(command.help or "")), "")
        yield from ("```text", f"csvae {name} {words}", "```", "")
        for option in command.get_params(context):
            record = option.get_help_record(context)
            if isinstance(option, click.Option) and record:
                yield from (f"`{record[0]}`", f":   {escaped(record[1])}", "")


def escaped(text: str) -> str:
    """Plain text as Markdown. Code between backticks stays code."""
    parts = re.split("(`[^`]*`)", text)
    return "".join(part if part[:1] == "`" else re.sub(r"[*_<$\\\[\]]", entity, part) for part in parts)


def entity(found: re.Match[str]) -> str:
    """A character that Markdown and the formulas leave as it is."""
    return f"&#{ord(found[0])};"
