"""`csvae list`: the packaged models."""

from __future__ import annotations

import click

from csvae_hub.cli.common import echo, json_option, print_json, read_model


@click.command("list")
@json_option
def command(as_json: bool) -> None:
    """List the models that come with the package."""
    from csvae_hub import hub

    models = {name: read_model(hub.resolve(name)) for name in hub.list_packaged()}
    if as_json:
        print_json({name: content["config"] for name, (content, _) in models.items()})
        return
    for name, (_, config) in models.items():
        echo(f"{name}  {config.model}  {'×'.join(map(str, config.shape))}  {', '.join(config.attributes)}")
    if not models:
        echo("no packaged models; `csvae train` makes your own")
