"""`csvae download`: weights from the Hugging Face Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from csvae_hub.cli.common import FilePath, echo


@click.command("download", short_help="Fetch weights from the Hub and print their folder.")
@click.argument("repo_id", metavar="USER/NAME")
@click.option("-o", "--output", type=FilePath(file_okay=False), help="Copy the files here.")
@click.option("--revision", help="A branch, tag or commit.  [default: main]")
@click.option("--force", is_flag=True, help="Download again what is in the cache.")
@click.option("--offline", is_flag=True, help="Use the cache and no network.")
def command(repo_id: str, output: Path | None, revision: str | None, force: bool, offline: bool) -> None:
    """Fetch the weights of the Hub repo USER/NAME and print their folder.

    Without --output they are kept in the Hub's cache, where every command finds them as USER/NAME.
    """
    from csvae_hub import hub
    from csvae_hub.hub import COMPANIONS, PICTURE, REQUIRED
    from csvae_hub.hub.download import download
    from csvae_hub.hub.safe_files import inside

    if force and offline:
        raise click.UsageError("--force with --offline: what is in the cache can't be downloaded again; leave out one")
    try:
        folder = download(
            repo_id.removeprefix(hub.HUB),
            revision=revision,
            force_download=force,
            local_files_only=offline,
            companions=(*COMPANIONS, PICTURE),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for name in (*COMPANIONS, PICTURE, *REQUIRED):
            if inside(folder, name).is_file():
                with hub.replacing(output / name) as temporary:
                    shutil.copyfile(folder / name, temporary)
    echo(output or folder)
