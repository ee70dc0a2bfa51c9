"""`csvae demo`: a page in the browser."""

from __future__ import annotations

import click

from csvae_hub.cli.common import check_device, device_option, echo


@click.command("demo")
@click.option("--model", "model_name", default="celeba-128", show_default=True, help="Name, folder or Hub repo.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines in.")
@click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True)
@click.option("--open/--no-browser", "browser", default=False, help="Open a browser.  [default: print the address]")
@device_option
def command(model_name: str, host: str, port: int, browser: bool, device: str | None) -> None:
    """Edit photos on a page in the browser, until Ctrl-C.

    The page needs no network and listens to this machine only. Photos are not kept: their files are deleted after a few
    minutes, and all of them when the page ends.
    """
    check_device(device)
    from csvae_hub.demo import build, start

    try:
        page = build(model_name, device)
    except ValueError as error:
        raise click.UsageError(f"--model {model_name}: {error}") from error
    address = start(page, host, port, browser)
    echo(f"{address} (Ctrl-C ends it)")
    page.block_thread()
