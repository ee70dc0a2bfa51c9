"""`csvae info`: one model and its figures, or the mark of an edited photo."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from csvae_hub.cli.common import echo, echo_lines, json_option, print_json


@click.command("info", short_help="Show a model and its figures, or the mark of an edited photo.")
@click.argument("model_name", metavar="MODEL")
@json_option
def command(model_name: str, as_json: bool) -> None:
    """Show the config of MODEL, and its figures where it was measured; or, of a picture, its mark as an edited one.

    Checks the JSON files as loading does. Does not read the weights.
    """
    if Path(model_name).is_file():
        _show_mark(Path(model_name), as_json)
        return
    from csvae_hub import hub

    folder = hub.resolve(model_name)
    content, config = {"config": hub.read_config(folder)}, hub.read_model_config(folder)
    for file in (hub.PREPROCESSOR, "training.json", "evaluation.json"):
        if file == hub.PREPROCESSOR or hub.inside(folder, file).is_file():
            content[file.removesuffix(".json")] = hub.read_json(hub.inside(folder, file))
    if as_json:
        print_json({"folder": str(folder), **content})
        return
    shape = "×".join(map(str, config.shape))
    echo(f"folder      {folder}")
    echo(f"model       {config.model}, backbone {config.backbone.name}, {shape}")
    echo(f"latents     z {config.z_dim}, w {len(config.attributes)} × {config.w_dim}")
    echo(f"attributes  {', '.join(config.attributes)}")
    for group in config.exclusive:
        echo(f"exactly one {', '.join(group)}")
    if "evaluation" not in content:
        echo("measured    nothing yet: csvae eval MODEL --data FOLDER -o evaluation.json")
        return
    from csvae_hub.hub.card_tables import at, figures, is_number, split_of

    evaluation = content["evaluation"]
    count = at(evaluation, "count", default=at(evaluation, "data", "test", "count"))
    pictures = f"{count:,} examples of " if is_number(count) else ""
    echo(f"measured    on {pictures}the {split_of(evaluation)} split")
    echo_lines(figures(evaluation, config.attributes))


def _show_mark(photo: Path, as_json: bool) -> None:
    from csvae_hub.editing import read_manifest, read_mark

    try:
        mark = read_mark(photo)
        signed = read_manifest(photo) if importlib.util.find_spec("c2pa") else None
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json({"photo": str(photo), "mark": mark, "c2pa": signed})
        return
    if mark is None:
        echo("mark        none: nothing says that this picture was edited here")
    else:
        echo(f"mark        {mark['digital_source_type']}")
        for edit in mark["edits"]:
            echo(f"edited by   {edit['software']}: {edit['parameters']}")
    if signed is not None:
        active = signed.get("manifests", {}).get(signed.get("active_manifest"), {})
        issuer = active.get("signature_info", {}).get("issuer", "nobody named")
        echo(f"C2PA        by {issuer}; {signed.get('validation_state')}; trust in the signer is not looked at")
