"""The command line `csvae`. torch and the library are imported by the commands, so that `--help` is quick."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import click

from csvae_hub.cli_demo import demo
from csvae_hub.cli_edit import edit, json_option, map_command, print_json, sweep
from csvae_hub.cli_eval import eval_command
from csvae_hub.cli_hub import download, push
from csvae_hub.errors import (
    ConfigError,
    DataError,
    ImageError,
    MissingExtraError,
    UnknownAttributeError,
    UnknownModelError,
)


class _Commands(click.Group):
    """Turns the library's named errors into one line and an exit code: 2 for wrong use, else 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (UnknownModelError, UnknownAttributeError, ConfigError) as error:
            raise click.UsageError(str(error)) from error
        except BrokenPipeError:
            raise
        except (ImageError, DataError, MissingExtraError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="csvae-hub", prog_name="csvae")
def main() -> None:
    """Change attributes of face pictures; train and measure the models that do it.

    Exit codes: 0 done; 1 something failed (each picture named, the rest done); 2 wrong use.
    """


@main.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the models that come with the package."""
    from csvae_hub import hub

    configs = {name: hub.read_config(hub.resolve(name)) for name in hub.list_packaged()}
    if as_json:
        print_json(configs)
        return
    for name, config in configs.items():
        click.echo(f"{name}  {config['model']}  {_shape(config)}  {', '.join(config['attributes'])}")
    if not configs:
        click.echo("no packaged models; `csvae train` makes your own")


@main.command()
@click.argument("model_name", metavar="MODEL")
@json_option
def info(model_name: str, as_json: bool) -> None:
    """Show what MODEL is and what was measured of it."""
    from csvae_hub import hub

    folder = hub.resolve(model_name)
    files = {"config": hub.CONFIG, "training": "training.json", "evaluation": "evaluation.json"}
    there = {key: name for key, name in files.items() if key == "config" or (folder / name).is_file()}
    content = {key: hub.read_json(folder / name) for key, name in there.items()}
    if as_json:
        print_json({"folder": str(folder), **content})
        return
    config = content["config"]
    backbone = config.get("backbone", {})
    click.echo(f"folder      {folder}")
    click.echo(f"model       {config['model']}, backbone {backbone.get('name', 'unknown')}, {_shape(config)}")
    click.echo(f"latents     z {config.get('z_dim', '?')}, w {len(config['attributes'])} × {config.get('w_dim', '?')}")
    click.echo(f"attributes  {', '.join(config['attributes'])}")
    if "evaluation" in content:
        from csvae_hub.evaluation import markdown_table

        click.echo("\n" + markdown_table(content["evaluation"]))
    else:
        click.echo("measured    nothing yet: csvae eval MODEL --data FOLDER -o evaluation.json")


@main.command()
@click.option(
    "--recipe", default="synthetic-faces", show_default=True, help="A packaged recipe, or the path of a .toml file."
)
@click.option("--data", help="A folder of pictures, or the name of a data set.  [default: the recipe's own]")
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="The run.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field: trainer.epochs=3.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on from a checkpoint, or start anew.")
@click.option("--initial", help="Weights to start from: a folder or a packaged name.  [default: random]")
def train(
    recipe: str, data: str | None, output: Path, overrides: tuple[str, ...], resume: bool, initial: str | None
) -> None:
    """Train a model by a recipe; OUTPUT/model is the weights folder.

    Without options, a small model of drawn faces is trained in a few minutes. OUTPUT/grids shows its edits.
    """
    wrong = [override for override in overrides if "=" not in override]
    if wrong:
        raise click.UsageError(f"--set {wrong[0]}: expected KEY=VALUE, such as trainer.epochs=3")
    from csvae_hub.training import load_recipe
    from csvae_hub.training import train as follow

    pairs = (override.partition("=") for override in overrides)
    follow(load_recipe(recipe, {key: value for key, _, value in pairs}), data, output, resume=resume, initial=initial)
    click.echo(f"trained: {output / 'model'}")
    grids = sorted((output / "grids").glob("*.png"))
    if grids:
        click.echo(f"edits, a column for each attribute: {grids[-1]}")


@main.command()
def env() -> None:
    """Show the versions and devices that a report of a fault should name."""
    import torch

    click.echo(f"csvae-hub {_version('csvae-hub')}")
    click.echo(f"python {platform.python_version()} on {platform.platform()}")
    optional = (
        "accelerate",
        "tensorboard",
        "torchmetrics",
        "scikit-learn",
        "matplotlib",
        "opencv-python-headless",
        "gradio",
    )
    for package in ("torch", "torchvision", "huggingface-hub", "safetensors", "pillow", "numpy", *optional):
        click.echo(f"{package} {_version(package)}")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    click.echo(f"cuda {', '.join(devices) or 'none'}")
    click.echo(f"threads {torch.get_num_threads()} of {os.cpu_count()} cores")


for command in (edit, sweep, map_command, demo, eval_command, push, download):
    main.add_command(command)


# -- helpers ------------------------------------------------------------------------------------------------------


def _shape(config: dict[str, Any]) -> str:
    return "×".join(str(side) for side in config["shape"])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
