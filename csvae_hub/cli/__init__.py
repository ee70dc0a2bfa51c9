"""The command line `csvae`: a file a command. A command imports the library when it runs, so that `--help` is quick."""

from __future__ import annotations

import importlib
from typing import Any

import click

from csvae_hub import __version__
from csvae_hub.cli.common import prepare_streams
from csvae_hub.errors import (
    ConfigError,
    DataError,
    ImageError,
    MissingExtraError,
    UnknownAttributeError,
    UnknownModelError,
)
from csvae_hub.text import printable

COMMANDS = (
    "demo",
    "download",
    "edit",
    "env",
    "eval",
    "export",
    "info",
    "list",
    "map",
    "push",
    "sweep",
    "train",
    "video",
)
"""Each is the name of a file here, which holds `command`. So `list`, `map` and `eval` are modules in this package."""


class _Commands(click.Group):
    """Imports a command when it is used. Turns named errors into one line and an exit code: 2 for wrong use, else 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return importlib.import_module(f"csvae_hub.cli.{cmd_name}").command if cmd_name in COMMANDS else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        prepare_streams()  # here, since nothing is printed before
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(printable(error.format_message()), error.ctx) from error
        except click.ClickException as error:
            raise click.ClickException(printable(error.format_message())) from error
        except (UnknownModelError, UnknownAttributeError, ConfigError) as error:
            raise click.UsageError(printable(str(error))) from error
        except BrokenPipeError:
            raise
        except (ImageError, DataError, MissingExtraError, OSError) as error:
            raise click.ClickException(printable(str(error))) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="csvae")
def main() -> None:
    """Change attributes of face pictures. Train and measure the models that do it.

    Exit codes: 0 done; 1 something failed (each picture named, the rest done); 2 wrong use.
    """
