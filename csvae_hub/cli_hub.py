"""The commands of `csvae` that speak with the Hugging Face Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import click


@click.command()
@click.argument("model_name", metavar="MODEL")
@click.argument("repo_id", metavar="USER/NAME")
@click.option("--private/--public", default=None, help="Of a repo that is made now.  [default: the account's]")
@click.option("--branch", help="Made where it is missing.  [default: main]")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("-m", "--message", default="Upload weights with csvae-hub", show_default=True, help="Of the commit.")
@click.option("--tag", help="A name for this version, such as v1.0.")
@click.option("--overwrite-card", is_flag=True, help="Replace a model card that was edited in the repo.")
@click.option("--license", "license_id", help="Of the weights, for the card: the Hub's name of it, or other.")
@click.option("--license-name", help="With --license other.")
@click.option("--license-link", help="With --license other.")
@click.option("--dataset", "datasets", multiple=True, help="For the card: what the weights were trained on.")
def push(
    model_name: str,
    repo_id: str,
    private: bool | None,
    branch: str | None,
    create_pr: bool,
    message: str,
    tag: str | None,
    overwrite_card: bool,
    license_id: str | None,
    license_name: str | None,
    license_link: str | None,
    datasets: tuple[str, ...],
) -> None:
    """Send the weights folder MODEL to the Hub repo USER/NAME, in one commit.

    The token is the one of `hf auth login`, or HF_TOKEN. Without a README.md in the folder, a model card is made of its
    JSON files.
    """
    if tag is not None and create_pr:
        raise click.UsageError("--tag with --create-pr: a pull request has no commit to tag; tag once it is merged")
    fields = {
        "license": license_id,
        "license_name": license_name,
        "license_link": license_link,
        "datasets": list(datasets) or None,
    }
    from csvae_hub.models import AttributeModel

    model = AttributeModel.from_pretrained(model_name, device="cpu")
    try:
        commit = model.push_to_hub(
            repo_id,
            private=private,
            branch=branch,
            create_pr=create_pr,
            commit_message=message,
            overwrite_card=overwrite_card,
            tag=tag,
            card_fields={name: value for name, value in fields.items() if value is not None},
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(commit.pr_url or commit.commit_url)


@click.command()
@click.argument("repo_id", metavar="USER/NAME")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Copy the files here.")
@click.option("--revision", help="A branch, tag or commit.  [default: main]")
@click.option("--force", is_flag=True, help="Download again what is in the cache.")
@click.option("--offline", is_flag=True, help="Use the cache and no network.")
def download(repo_id: str, output: Path | None, revision: str | None, force: bool, offline: bool) -> None:
    """Fetch the weights of the Hub repo USER/NAME and print their folder.

    Without --output they are kept in the Hub's cache, where every command finds them as USER/NAME.
    """
    from csvae_hub import hub
    from csvae_hub.hub import COMPANIONS, PICTURE, REQUIRED
    from csvae_hub.hub.download import download as fetch
    from csvae_hub.hub.safe_files import inside

    folder = fetch(
        repo_id.removeprefix(hub.HUB),
        revision=revision,
        force_download=force,
        local_files_only=offline,
        companions=(*COMPANIONS, PICTURE),
    )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for name in (*COMPANIONS, PICTURE, *REQUIRED):
            if inside(folder, name).is_file():
                with hub.replacing(output / name) as temporary:
                    shutil.copyfile(folder / name, temporary)
    click.echo(output or folder)
