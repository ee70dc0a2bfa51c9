"""`csvae export`: a model as graphs that run without csvae-hub."""

from __future__ import annotations

from pathlib import Path

import click

from csvae_hub.cli.common import FilePath, echo, json_option, print_json
from csvae_hub.errors import CardError, ExportError

FORMATS = ("onnx", "torch")


@click.command("export", short_help="Write a model as ONNX or torch.export graphs.")
@click.argument("model_name", metavar="MODEL")
@click.option("-o", "--output", required=True, type=FilePath(file_okay=False), help="The folder of the graphs.")
@click.option("--format", "name", type=click.Choice(FORMATS), default="onnx", show_default=True)
@json_option
def command(model_name: str, output: Path, name: str, as_json: bool) -> None:
    """Write encoder, decoder and edit of MODEL as graphs, which take a batch of any size.

    onnx: csvae_hub.onnx runs them, without torch, as does any other runtime of ONNX. torch: programs of torch.export,
    which run without csvae-hub. The graphs are compared with MODEL first; nothing is written where they differ by more
    than 1/255. MODEL is a name or a folder. Extra: export, for onnx.
    """
    from csvae_hub.export import export_model

    try:
        done = export_model(model_name, output, format=name)
    except (CardError, ExportError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json({"files": [str(path) for path in done.files], "differences": done.differences})
        return
    for path in done.files:
        echo(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    echo(f"largest difference from {model_name}: {max(done.differences.values()):.1g}, of at most 1/255 = 0.004")
