"""`csvae list`: the packaged models."""

from __future__ import annotations

import click

from csvae_hub.cli.common import json_option, print_json


@click.command("list")
@json_option
def command(as_json: bool) -> None:
    """List the models that come with the package."""
    from csvae_hub import hub

    configs = {name: hub.read_json(hub.PACKAGED / name / hub.CONFIG) for name in hub.list_packaged()}
    if as_json:
        print_json(configs)
        return
    for name, config in configs.items():
        shape = "×".join(map(str, config["shape"]))
        click.echo(f"{name}  {config['model']}  {shape}  {', '.join(config['attributes'])}")
    if not configs:
        click.echo("no packaged models; `csvae train` makes your own")
