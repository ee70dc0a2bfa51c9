"""`csvae eval`: one model measured, or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from csvae_hub.data import AttributeData
    from csvae_hub.models import AttributeModel


@click.command("eval")
@click.argument("model_name", metavar="MODEL")
@click.option(
    "--data", required=True, help="A folder of labelled pictures with three splits, or the name of drawn data."
)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="evaluation.json")
@click.option("--compare", "others", multiple=True, metavar="MODEL", help="Another model; may be given several times.")
@click.option("--judges", type=click.Path(exists=True, file_okay=False), help="Trained judges.  [default: train them]")
@click.option("--photos", type=click.IntRange(min=0), default=300, show_default=True, help="Edited as photos; 0: none.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the judges, the probes and the samples.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="A folder for figures.")
@click.option(
    "--examples", type=click.IntRange(min=1), default=10_000, show_default=True, help="A split, of drawn data."
)
@click.option("--data-seed", type=int, default=0, show_default=True, help="Of drawn data.")
@click.option("--device", help="cpu, cuda, cuda:1, …  [default: CUDA where there is one]")
def eval_command(
    model_name: str,
    data: str,
    output: Path,
    others: tuple[str, ...],
    judges: str | None,
    photos: int,
    seed: int,
    plots: Path | None,
    examples: int,
    data_seed: int,
    device: str | None,
) -> None:
    """Measure MODEL: reconstruction, bound, edits, variety and leakage, on the test split.

    With --compare all models are measured with the same judges and data, and OUTPUT holds {"models": {NAME: ...}}.
    They need the same attributes and the same size of pictures.
    """
    names = (model_name, *others)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise click.UsageError(f"{twice[0]} is given twice: give each model once")
    check_device(device)
    from csvae_hub import hub
    from csvae_hub.data import load_data
    from csvae_hub.evaluation import Judges, compare, comparison_table, evaluate, markdown_table
    from csvae_hub.evaluation.compare import check_comparable
    from csvae_hub.models import AttributeModel

    models = {name: AttributeModel.from_pretrained(name, device=device) for name in names}
    try:
        check_comparable(models)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    model = models[model_name]
    size = model.config.image_size if model.config.is_image else 64
    splits = [
        load_data(data, attributes=model.attributes, split=split, image_size=size, examples=examples, seed=data_seed)
        for split in ("train", "valid", "test")
    ]
    options: dict[str, Any] = {"judges": Judges.load(judges) if judges else None, "seed": seed}
    if photos:
        from csvae_hub.editing.aligned import put_back

        options |= {"put_back": put_back, "photos": photos}

    def say(line: str) -> None:
        click.echo(line, err=True)

    output.parent.mkdir(parents=True, exist_ok=True)
    if others:
        results = compare(models, splits[0], splits[1], splits[2], **options, progress=say)
        hub.write_json(output, {"models": results})
        click.echo(comparison_table(results))
    else:
        results = {model_name: evaluate(model, splits[0], splits[1], splits[2], **options, progress=say)}
        hub.write_json(output, results[model_name])
        click.echo(markdown_table(results[model_name]))
    if plots is not None:
        draw(plots, models, results, splits[2], say)


def draw(
    folder: Path,
    models: Mapping[str, AttributeModel],
    results: Mapping[str, Mapping[str, Any]],
    data: AttributeData,
    say: Callable[[str], None],
) -> None:
    """Writes what `csvae_hub.plotting` can draw of these models, and says what it can't.

    Faces over a plane are drawn of drawn data only, so that no photo of a person lands in a folder unasked.
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


def check_device(device: str | None) -> None:
    """Refuses, as wrong use, a device that torch can't put a tensor on; None is torch's own choice."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise click.UsageError(f"--device {device}: expected cpu, cuda or cuda:N ({reason})") from error
