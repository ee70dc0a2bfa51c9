"""`csvae list`: the packaged models."""

from __future__ import annotations

import click

from csvae_hub.cli.common import echo, json_option, print_json


@click.command("list")
@json_option
def command(as_json: bool) -> None:
    """List the models that come with the package."""
    from csvae_hub import hub

    folders = {name: hub.resolve(name) for name in hub.list_packaged()}
    models = {name: hub.read_model_config(folder) for name, folder in folders.items()}
    if as_json:
        print_json({name: hub.read_config(folder) for name, folder in folders.items()})
        return
    for name, config in models.items():
        echo(f"{name}  {config.model}  {'×'.join(map(str, config.shape))}  {', '.join(config.attributes)}")
    if not models:
        echo("no packaged models; `csvae train` makes your own")
