"""`csvae train`: a model by a recipe."""

from __future__ import annotations

from pathlib import Path

import click

from csvae_hub.cli.common import FilePath, echo


@click.command("train")
@click.option(
    "--recipe", default="synthetic-faces", show_default=True, help="A packaged recipe, or the path of a .toml file."
)
@click.option("--data", help="A folder of pictures, or the name of a data set.  [default: the recipe's own]")
@click.option("-o", "--output", required=True, type=FilePath(file_okay=False), help="The folder of the run.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field: trainer.epochs=3.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Resume from a checkpoint, or start anew.")
@click.option("--initial", help="Weights to start from: a folder or a packaged name.  [default: random]")
def command(
    recipe: str, data: str | None, output: Path, overrides: tuple[str, ...], resume: bool, initial: str | None
) -> None:
    """Train a model by a recipe; OUTPUT/model is the weights folder.

    Without options, a small model of drawn faces is trained in a few minutes. OUTPUT/grids shows its edits.
    """
    wrong = [override for override in overrides if "=" not in override]
    if wrong:
        raise click.UsageError(f"--set {wrong[0]}: expected KEY=VALUE, such as trainer.epochs=3")
    from csvae_hub.training import load_recipe, train

    fields = dict(override.split("=", 1) for override in overrides)
    train(load_recipe(recipe, fields), data, output, resume=resume, initial=initial)
    echo(f"trained: {output / 'model'}")
    grids = sorted((output / "grids").glob("*.png"))
    if grids:
        echo(f"edits, a column for each attribute: {grids[-1]}")
