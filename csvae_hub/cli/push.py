"""`csvae push`: weights to the Hugging Face Hub."""

from __future__ import annotations

import click

from csvae_hub.cli.common import echo


@click.command("push", short_help="Send weights to the Hub, in one commit.")
@click.argument("model_name", metavar="MODEL")
@click.argument("repo_id", metavar="USER/NAME")
@click.option("--private/--public", default=None, help="For a repo that is created now.  [default: the account's]")
@click.option("--branch", help="Created where it is missing.  [default: main]")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("-m", "--message", default="Upload weights with csvae-hub", show_default=True, help="The commit message.")
@click.option("--tag", help="A name for this version, such as v1.0.")
@click.option("--overwrite-card", is_flag=True, help="Replace a model card that was edited in the repo.")
@click.option("--license", "license_id", help="Licence of the weights, for the card: the Hub's name of it, or other.")
@click.option("--license-name", help="With --license other.")
@click.option("--license-link", help="With --license other.")
@click.option("--dataset", "datasets", multiple=True, help="Training data, for the card.")
def command(
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

    The token comes from `hf auth login` or HF_TOKEN. Without a README.md in the folder, a model card is made from its
    JSON files.
    """
    if tag is not None and create_pr:
        raise click.UsageError("--tag with --create-pr: a pull request has no commit to tag; tag once it is merged")
    fields: dict[str, object] = {"license": license_id, "license_name": license_name, "license_link": license_link}
    fields["datasets"] = list(datasets)
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
            card_fields={name: value for name, value in fields.items() if value},
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    echo(commit.pr_url or commit.commit_url)
