"""`csvae info`: one model and its figures."""

from __future__ import annotations

import click

from csvae_hub.cli.common import json_option, print_json


@click.command("info")
@click.argument("model_name", metavar="MODEL")
@json_option
def command(model_name: str, as_json: bool) -> None:
    """Show the config of MODEL, and its figures where it was measured."""
    from csvae_hub import hub

    folder = hub.resolve(model_name)
    files = {"config": hub.CONFIG, "training": "training.json", "evaluation": "evaluation.json"}
    there = {key: name for key, name in files.items() if key == "config" or (folder / name).is_file()}
    content = {key: hub.read_json(folder / name) for key, name in there.items()}
    if as_json:
        print_json({"folder": str(folder), **content})
        return
    config = content["config"]
    backbone = config.get("backbone", {}).get("name", "unknown")
    shape = "×".join(map(str, config["shape"]))
    click.echo(f"folder      {folder}")
    click.echo(f"model       {config['model']}, backbone {backbone}, {shape}")
    click.echo(f"latents     z {config.get('z_dim', '?')}, w {len(config['attributes'])} × {config.get('w_dim', '?')}")
    click.echo(f"attributes  {', '.join(config['attributes'])}")
    if "evaluation" in content:
        from csvae_hub.evaluation import markdown_table

        click.echo("\n" + markdown_table(content["evaluation"]))
    else:
        click.echo("measured    nothing yet: csvae eval MODEL --data FOLDER -o evaluation.json")
