"""`csvae train`: a model by a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csvae_hub.cli.common import FilePath, echo, echo_lines
from csvae_hub.cli.cores import obey_the_cores

if TYPE_CHECKING:
    from csvae_hub.training import Recipe


@click.command("train")
@click.option(
    "--recipe", default="synthetic-faces", show_default=True, help="A packaged recipe, or the path of a .toml file."
)
@click.option(
    "--data",
    help="A folder of pictures, hf:OWNER/NAME, wds:SHARDS.tar, or drawn data by name.  [default: the recipe's own]",
)
@click.option("-o", "--output", required=True, type=FilePath(file_okay=False), help="The folder of the run.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field: trainer.epochs=20.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Resume from a checkpoint, or start anew.")
@click.option("--dry-run", is_flag=True, help="Print the recipe and what it would take, by ten steps; train nothing.")
@click.option("--balance", multiple=True, metavar="NAME", help="Draw as many examples with this attribute as without.")
@click.option(
    "--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Take each batch in so many parts."
)
@click.option("--clip-norm", type=click.FloatRange(0, min_open=True), help="The greatest norm of a gradient.")
@click.option(
    "--kl-warm-up", type=click.FloatRange(0), default=0.0, metavar="EPOCHS", help="Let both KLs rise so long."
)
@click.option(
    "--free-nats", type=click.FloatRange(0), default=0.0, help="Free bits: nats of each latent's KL at no cost."
)
@click.option("--compile/--no-compile", default=False, help="Compile the backbone, which takes a minute at first.")
@click.option("--log-with", multiple=True, metavar="NAME", help="A tracker of accelerate's.  [default: tensorboard]")
@click.option("--initial", help="Weights to start from: a folder or a packaged name.  [default: random]")
def command(
    recipe: str,
    data: str | None,
    output: Path,
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    balance: tuple[str, ...],
    accumulate: int,
    clip_norm: float | None,
    kl_warm_up: float,
    free_nats: float,
    compile: bool,
    log_with: tuple[str, ...],
    initial: str | None,
) -> None:
    """Train a model by a recipe; OUTPUT/model is the weights folder.

    Without options: a small model of drawn faces, in three minutes on two cores. OUTPUT/grids shows its edits.

    In several processes: accelerate launch -m csvae_hub train …, or torchrun with the same words.
    """
    wrong = [override for override in overrides if "=" not in override]
    if wrong:
        raise click.UsageError(f"--set {wrong[0]}: expected KEY=VALUE, such as trainer.epochs=3")
    if is_first := os.environ.get("RANK", "0") == "0":  # of several processes
        echo(f"csvae train: {recipe}", err=True)  # the imports take seconds
    from csvae_hub.training import load_recipe, train

    obey_the_cores()
    followed = load_recipe(recipe, dict(override.split("=", 1) for override in overrides))
    options = {"initial": initial, "balance": balance, "accumulation": accumulate, "clip_norm": clip_norm}
    options |= {"kl_warm_up": kl_warm_up, "free_nats": free_nats, "compile": compile}
    if dry_run:
        rehearse(followed, data, options)
        return
    train(followed, data, output, resume=resume, log_with=log_with, **options)
    if not is_first:
        return
    echo(f"trained: {output / 'model'}")
    grids = sorted((output / "grids").glob("*.png"))
    if grids:
        echo(f"edits, a column for each attribute: {grids[-1]}")


def rehearse(recipe: Recipe, data: str | None, options: dict[str, Any]) -> None:
    """Prints the recipe and what following it with these options of `train` would take."""
    from csvae_hub.training.recipes import prepare
    from csvae_hub.training.rehearsal import as_toml, rehearse

    found = rehearse(prepare(recipe, data, None, quiet=True, **options))
    speed = recipe.trainer.batch_size / found["seconds_a_batch"]
    hours, minutes = divmod(round(found["seconds"] / 60), 60)
    echo_lines(as_toml(recipe))
    echo(f"# parameters: {found['parameters']:,} of the model, {found['all_parameters']:,} with the networks beside it")
    echo(f"# data: {found['examples']:,} examples, {found['batches']:,} batches in all")
    echo(f"# time: about {hours} h {minutes:02d} min at {speed:.0f} examples a second")
    echo(f"# memory: {found['bytes'] / 1e9:.1f} GB")
