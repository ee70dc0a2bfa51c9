"""`csvae eval`: one model measured, or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csvae_hub.cli.common import FilePath, check_device, device_option, echo, echo_lines

if TYPE_CHECKING:
    from csvae_hub.data import AttributeData
    from csvae_hub.models import AttributeModel


SEED = click.IntRange(0, 2**32 - 1)


@click.command("eval", short_help="Measure a model: reconstruction, edits, variety, leakage.")
@click.argument("model_name", metavar="MODEL")
@click.option("--data", required=True, help="Labelled pictures with three splits, named as for train, or drawn data.")
@click.option("-o", "--output", required=True, type=FilePath(dir_okay=False), help="The figures, as JSON.")
@click.option("--compare", "others", multiple=True, metavar="MODEL", help="Another model; may be given several times.")
@click.option("--judges", type=FilePath(file_okay=False), help="Their folder; trained into it where it isn't there.")
@click.option("--photos", type=click.IntRange(min=0), default=300, show_default=True, help="Edited as photos; 0: none.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the judges, the probes and the samples.")
@click.option("--plots", type=FilePath(file_okay=False), help="A folder for plots.")
@click.option(
    "--examples", type=click.IntRange(min=1), default=10_000, show_default=True, help="Drawn pictures in each split."
)
@click.option("--data-seed", type=SEED, default=0, show_default=True, help="Seed of drawn data.")
@device_option
def command(
    model_name: str,
    data: str,
    output: Path,
    others: tuple[str, ...],
    judges: Path | None,
    photos: int,
    seed: int,
    plots: Path | None,
    examples: int,
    data_seed: int,
    device: str | None,
) -> None:
    """Measure MODEL: reconstruction, bound, edits, variety and leakage, on the test split.

    Two judges are trained first, a quarter of an hour each for 26,578 pictures of 64 pixels on two cores; --judges
    keeps them for the next start. The figures are written to OUTPUT, and to evaluation.json in the weights folder,
    where `csvae info` and `csvae push` find them. Packaged models and models of the Hub stay as they are.

    With --compare all models are measured with the same judges and data, and OUTPUT holds {"models": {NAME: ...}}.
    They need the same attributes and the same size of pictures.
    """
    names = (model_name, *others)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise click.UsageError(f"{twice[0]} is given twice: give each model once")
    say = partial(echo, err=True)
    say(f"reading {', '.join(names)}, and of {data} the splits train, valid and test")  # torch takes seconds to import
    check_device(device)
    from csvae_hub import hub
    from csvae_hub.data import load_data
    from csvae_hub.evaluation import Judges, compare, comparison_table, evaluate, train_judges
    from csvae_hub.evaluation.compare import check_comparable
    from csvae_hub.hub.card_tables import figures
    from csvae_hub.models import AttributeModel

    folders = {name: hub.resolve(name) for name in names}
    copies = {name: _own_file(folder) for name, folder in folders.items()}  # before hours of work, as it may refuse
    models = {name: AttributeModel.from_pretrained(folder, device=device) for name, folder in folders.items()}
    try:
        check_comparable(models)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    model = models[model_name]
    size, channels = (model.config.image_size, model.config.shape[0]) if model.config.is_image else (64, 3)
    load = partial(load_data, data, attributes=model.attributes, examples=examples, seed=data_seed, channels=channels)
    splits = [load(split=split, image_size=size) for split in ("train", "valid", "test")]
    groups = model.config.exclusive
    train, valid, test = (part.exclusive(groups, mask=True) for part in splits) if groups else splits
    if judges is not None and not judges.exists() and model.config.is_image:
        train_judges(train, groups, seed=seed, device=device, progress=say).save(judges)
    options: dict[str, Any] = {"judges": Judges.load(judges) if judges else None, "seed": seed, "progress": say}
    if photos:
        from csvae_hub.editing.aligned import put_back

        options |= {"put_back": put_back, "photos": photos}
    output.parent.mkdir(parents=True, exist_ok=True)
    if others:
        results = compare(models, train, valid, test, **options)
        hub.write_json(output, {"models": results})
        table = comparison_table(results)
    else:
        results = {model_name: evaluate(model, train, valid, test, **options)}
        hub.write_json(output, results[model_name])
        table = figures(results[model_name], model.attributes)
    echo_lines(table)
    for name, copy in copies.items():
        say(_write_copy(name, copy, output, results[name]))
    if plots is not None:
        draw(plots, models, results, test, say)


def _own_file(folder: Path) -> Path | None:
    """Gives evaluation.json of a user's weights folder; None for a packaged model and in the Hub's cache."""
    from csvae_hub.hub.folder import PACKAGED
    from csvae_hub.hub.safe_files import inside, of_repo

    path = inside(folder, "evaluation.json")
    return None if folder.resolve().parent == PACKAGED.resolve() or of_repo(path) else path


def _write_copy(name: str, copy: Path | None, output: Path, result: Mapping[str, Any]) -> str:
    """Writes the figures of a model to its folder. Gives a line that says so, or why not."""
    from csvae_hub import hub

    try:
        if copy is not None:
            hub.write_json(copy, result)
    except OSError as error:
        return f"{name}: the figures are in {output} only: {error}"
    return f"{name}: the figures are in {copy or f'{output} only, since this is a packaged model or one of the Hub'}"


def draw(
    folder: Path,
    models: Mapping[str, AttributeModel],
    results: Mapping[str, Mapping[str, Any]],
    data: AttributeData,
    say: Callable[[str], None],
) -> None:
    """Draws the figures of `csvae_hub.plotting` for these models, and names each that can't be drawn.

    Draws faces over a plane for drawn data only, so that no photo of a person lands in a folder unasked.
    """
    from csvae_hub import plotting
    from csvae_hub.evaluation.encoding import encode_data

    folder.mkdir(parents=True, exist_ok=True)

    def write(file: str, figure: Callable[[], Any]) -> None:
        try:
            plotting.save_figure(figure(), folder / file)
        except ValueError as error:
            say(f"no {file}: {error}")

    write("edits-against-leakage.png", lambda: plotting.edits_against_leakage(results))
    for name, model in models.items():
        selected = data.select(model.attributes)
        latents = encode_data(model, selected)
        plain = "-".join(part for part in Path(name).parts if part not in ("/", ".", ".."))
        write(f"planes-{plain}.png", lambda codes=latents, y=selected.labels: plotting.subspace_planes(codes, y))
        for attribute in model.attributes if data.has_counterfactuals and latents.w.shape[-1] else ():
            write(
                f"traversal-{plain}-{attribute}.png",
                lambda model=model, codes=latents, attribute=attribute: plotting.traversal(
                    model, codes[:1].to(model.device), attribute, examples=codes
                ),
            )
