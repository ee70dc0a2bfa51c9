"""The command line `csvae`. torch and the library are imported by the commands, so that `--help` is quick."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csvae_hub.cli_eval import check_device, eval_command
from csvae_hub.cli_hub import download, push
from csvae_hub.errors import (
    ConfigError,
    DataError,
    ImageError,
    MissingExtraError,
    UnknownAttributeError,
    UnknownModelError,
)

if TYPE_CHECKING:
    from csvae_hub.models import AttributeModel

VALUES = "True, False, a number, coordinates such as 2.5,1.0, 'sample' or a picture"


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


_model_option = click.option("--model", "model_name", default="celeba-64", show_default=True, help="Name or folder.")
_device_option = click.option("--device", help="cpu, cuda, cuda:1, …  [default: CUDA where there is one]")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


# -- edit ---------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("arguments", nargs=-1, required=True, metavar="INPUTS... NAME=VALUE...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A picture, or a folder.")
@_model_option
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Pictures at once.")
@_device_option
@_json_option
def edit(
    arguments: tuple[str, ...], output: Path, model_name: str, batch_size: int, device: str | None, as_json: bool
) -> None:
    """Change attributes of pictures.

    INPUTS are files or folders; what a folder holds is written under the same names in the folder OUTPUT. An input is
    overwritten only where OUTPUT is that very input.

    VALUE is True, False, a number (0 absent, 1 present, beyond exaggerates), coordinates in the attribute's subspace
    (Eyeglasses=2.5,1.0), 'sample', or a picture whose kind of the attribute is taken over.
    """
    changes = [argument for argument in arguments if "=" in argument and not Path(argument).exists()]
    inputs = [Path(argument) for argument in arguments if argument not in changes]
    parsed = _parse_changes(changes)
    from csvae_hub.editing import PlanError, edit_files, plan_files

    try:
        jobs = plan_files(inputs, output)
    except PlanError as error:
        raise click.UsageError(str(error)) from error
    model = _load_picture_model(model_name, device)
    values = {name: _value_for(model, name, value) for name, value in parsed.items()}
    with _progress(len(jobs), "edited") as advance:
        failed = edit_files(model, values, jobs, batch_size=batch_size, advance=advance)
    done = [job for job in jobs if job not in failed]
    if as_json:
        report = {
            "model": model_name,
            "edited": [{"input": str(job.source), "output": str(job.target)} for job in done],
            "failed": [{"input": str(job.source), "error": error} for job, error in failed.items()],
        }
        _print_json(report)
    else:
        click.echo(f"{len(done)} of {len(jobs)} written to {output}")
    for error in failed.values():
        click.echo(f"failed: {error}", err=True)
    if failed:
        sys.exit(1)


def _parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    if not changes:
        raise click.UsageError("nothing to change: expected at least one NAME=VALUE, such as Smiling=1")
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name in values:
            raise click.UsageError(f"{name!r} is given twice: give each attribute one value")
        values[name] = _parse_value(name, text)
    return values


def _parse_value(name: str, text: str) -> Any:
    words: dict[str, Any] = {"true": True, "false": False, "sample": "sample"}
    if text.lower() in words:
        return words[text.lower()]
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise click.UsageError(f"{name}={text}: expected {VALUES}, got {text!r}") from None
    if not all(abs(number) < float("inf") for number in numbers):
        raise click.UsageError(f"{name}={text}: expected finite numbers, got {text!r}")
    return numbers if len(numbers) > 1 else numbers[0]


def _value_for(model: AttributeModel, name: str, value: Any) -> Any:
    """The value as `model.edit` takes it: checked, and a picture encoded once instead of for every batch."""
    model.index(name)
    if isinstance(value, list) and model.needs == "w" and len(value) != model.config.w_dim:
        raise click.UsageError(f"{name}: expected {model.config.w_dim} coordinates, got {len(value)}")
    return model.encode(value) if isinstance(value, Path) else value


# -- the other commands -------------------------------------------------------------------------------------------


@main.command()
@click.argument("picture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("name")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The strip.")
@click.option("--from", "start", type=float, default=0.0, show_default=True, help="0 is absent.")
@click.option("--to", "stop", type=float, default=1.0, show_default=True, help="1 is present.")
@click.option("--steps", type=click.IntRange(min=2), default=7, show_default=True)
@_model_option
@_device_option
def sweep(
    picture: Path, name: str, output: Path, start: float, stop: float, steps: int, model_name: str, device: str | None
) -> None:
    """Draw PICTURE with the attribute NAME from absent to present, as a strip at the model's own size."""
    import torch

    from csvae_hub.editing import FORMATS, save_picture
    from csvae_hub.images import grid

    if output.suffix.lower() not in FORMATS:
        raise click.UsageError(f"-o {output}: expected a picture's name that ends in one of {', '.join(FORMATS)}")
    if output.resolve() == picture.resolve():
        raise click.UsageError(f"-o {output} is the input: give another name")
    model = _load_picture_model(model_name, device)

    with torch.inference_mode():
        latents = model.encode(picture)
        values = torch.linspace(start, stop, steps).tolist()
        strip = torch.cat([model.decode(model.edit(latents, {name: value})) for value in values])
    save_picture(grid(strip, columns=steps), output)
    click.echo(f"{name} from {start:g} to {stop:g} written to {output}")


@main.command("list")
@_json_option
def list_command(as_json: bool) -> None:
    """List the models that come with the package."""
    from csvae_hub import hub

    configs = {name: hub.read_json(hub.PACKAGED / name / hub.CONFIG) for name in hub.list_packaged()}
    if as_json:
        _print_json(configs)
        return
    for name, config in configs.items():
        click.echo(f"{name}  {config['model']}  {_shape(config)}  {', '.join(config['attributes'])}")
    if not configs:
        click.echo("no packaged models; `csvae train` makes your own")


@main.command()
@click.argument("model_name", metavar="MODEL")
@_json_option
def info(model_name: str, as_json: bool) -> None:
    """Show what MODEL is and what was measured of it."""
    from csvae_hub import hub

    folder = hub.resolve(model_name)
    files = {"config": hub.CONFIG, "training": "training.json", "evaluation": "evaluation.json"}
    there = {key: name for key, name in files.items() if key == "config" or (folder / name).is_file()}
    content = {key: hub.read_json(folder / name) for key, name in there.items()}
    if as_json:
        _print_json({"folder": str(folder), **content})
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
    optional = ("accelerate", "tensorboard", "torchmetrics", "scikit-learn", "matplotlib")
    for package in ("torch", "torchvision", "huggingface-hub", "safetensors", "pillow", "numpy", *optional):
        click.echo(f"{package} {_version(package)}")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    click.echo(f"cuda {', '.join(devices) or 'none'}")
    click.echo(f"threads {torch.get_num_threads()} of {os.cpu_count()} cores")


for command in (eval_command, push, download):
    main.add_command(command)


# -- helpers ------------------------------------------------------------------------------------------------------


def _load_model(name: str, device: str | None) -> AttributeModel:
    from csvae_hub.models import AttributeModel

    check_device(device)
    return AttributeModel.from_pretrained(name, device=device)


def _load_picture_model(name: str, device: str | None) -> AttributeModel:
    model = _load_model(name, device)
    if not model.config.is_image:
        raise click.UsageError(f"{name} is a model of vectors of {model.config.shape[0]} numbers, not of pictures")
    return model


@contextmanager
def _progress(total: int, verb: str, seconds: float = 5.0) -> Iterator[Callable[[int], None]]:
    """Gives what is called with the number just done: a bar on a terminal, a line every few seconds elsewhere."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=verb, file=sys.stderr) as bar:
            yield bar.update
        return
    done, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            click.echo(f"{verb} {done} of {total}", err=True)

    yield advance


def _print_json(content: dict[str, Any]) -> None:
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))


def _shape(config: dict[str, Any]) -> str:
    return "×".join(str(side) for side in config["shape"])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
