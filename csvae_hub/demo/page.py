"""Connects the page's components with a visitor's session, and serves the page."""

# Without `from __future__ import annotations`: Gradio reads the callbacks' annotations.
import functools
import hashlib
import html
import os
import signal
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from csvae_hub import hub
from csvae_hub.demo.editors import Editors
from csvae_hub.demo.folder import own_folder
from csvae_hub.demo.guard import Guard
from csvae_hub.demo.layout import BESIDE, CSS, DIVIDER, MAX_MEGABYTES, MOVES, Parts, theme
from csvae_hub.demo.session import Session, read_file
from csvae_hub.editing.blending import Paste
from csvae_hub.errors import ImageError, WeightsError, require

if TYPE_CHECKING:
    import gradio

EXAMPLE = Path(__file__).with_name("astronaut.jpg")
"""Eileen Collins, photographed by NASA (1993), in the public domain."""
SCRIPT = Path(__file__).with_name("page.js")
FIRST_EDITS = ("Eyeglasses", "Smiling", "Mouth_Slightly_Open")
"""Attributes whose change shows: the example photo opens with the first of them turned that the model has."""
VISITORS = 100
"""Most photos in memory; beyond, the visitor who waited longest has to choose it again."""
WAITING, AT_ONCE = 64, 2
"""Changes that may wait, and that are worked on at once."""
GONE = "there is no photo: choose one (some time after the last change it is forgotten)"
FETCH = "() => setTimeout(() => document.querySelector('#file').click(), 50)"
"""A file that is made upon a click is fetched by a second click, on a hidden button."""


def build(model: str = "celeba-128", device: torch.device | str | None = None) -> "gradio.Blocks":
    """The page, ready for `start`; the model, a folder, packaged name or Hub repo, is the one that is chosen first.

    Raises:
        MissingExtraError: Gradio, OpenCV or onnxruntime is missing.
        WeightsError: the model can't be loaded.
        ValueError: it is a model of vectors.
    """
    require("gradio", "demo")
    editors = Editors(model, device)
    own_folder()  # Gradio's parts look for theirs when they are made
    parts = Parts(editors)
    with parts.page:
        _connect(parts, editors)
    return parts.page


def start(
    page: "gradio.Blocks",
    host: str | None = "127.0.0.1",
    port: int | None = 7860,
    browser: bool = False,
    hosts: Collection[str] = (),
) -> str:
    """Serves a page, from this thread's background, and gives its address; `page.block_thread()` waits for Ctrl-C.

    SIGTERM and SIGHUP end it as Ctrl-C does, unless the caller handles them.

    Args:
        page: what `build` gave.
        host: the address to listen on; 0.0.0.0 lets other machines in. None leaves it to GRADIO_SERVER_NAME.
        port: None for the first free one from 7860 on.
        browser: open the page in a browser.
        hosts: names by which visitors reach the page through a proxy; "*" for any.

    Raises:
        OSError: the port is taken, or the address is none of this machine's.
    """
    if host is not None and port is not None:
        _check_free(host, port)
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has one of them
    for end in ends if threading.current_thread() is threading.main_thread() else ():
        if signal.getsignal(end) is signal.SIG_DFL:
            signal.signal(end, signal.default_int_handler)
    guard = functools.partial(
        Guard,
        hosts=[*hosts, *([host] if host else [])],
        max_upload=(MAX_MEGABYTES + 4) << 20,
        functions=lambda: page.fns,
    )
    page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE, api_open=False)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=MAX_MEGABYTES * 2**20,
        state_session_capacity=VISITORS,
        run_history=False,  # it would keep photos in the browser
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        app_kwargs={"middleware": [(guard, (), {})]},
        theme=theme(),
        css=CSS,
        js=SCRIPT.read_text(encoding="utf-8"),
    )
    return address


def _connect(p: Parts, editors: Editors) -> None:
    import gradio as gr

    def photos(here: Session) -> list[Any]:
        before, after = _kept(here.before(), "before.jpg"), _kept(here.after(), "after.jpg")
        return [before, after, (before, after)]

    def drawn(here: Session) -> str | None:
        return _kept(here.plane(), "plane.jpg") if here.has_planes else None

    def seen(here: Session) -> list[Any]:
        return [here, *photos(here), drawn(here), here.shown]

    def all_seen(here: Session) -> list[Any]:
        spare = [gr.skip()] * (len(p.sliders) - len(here.attributes))
        groups = here.editor.model.config.exclusive
        others = [gr.skip()] * (len(p.groups) - len(groups))
        return [*seen(here), *map(here.level, here.attributes), *spare, *map(here.member, groups), *others]

    def arranged(model: str, here: Session | None) -> list[Any]:
        """Sliders, planes and faces of this model and photo; without a photo they rest."""
        words = [(name.replace("_", " ").capitalize(), name) for name in editors.attributes[editors.name(model)]]
        groups = editors.groups[editors.name(model)]
        members = {name for group in groups for name in group}
        known = [
            gr.Slider(
                label=word,
                value=here.level(name) if here else 0,
                visible=name not in members,
                interactive=here is not None,
            )
            for word, name in words
        ]
        choices = [
            gr.Radio(
                [(word, name) for word, name in words if name in group],
                value=here.member(group) if here else None,
                visible=True,
                interactive=here is not None,
            )
            for group in groups
        ]
        crops = here.crops() if here else []
        return [
            *known,
            *[gr.Slider(visible=False)] * (len(p.sliders) - len(known)),
            *choices,
            *[gr.Radio(visible=False)] * (len(p.groups) - len(choices)),
            gr.Dropdown(words, value=here.shown if here else words[0][1]),
            gr.Column(visible=here is None or here.has_planes),
            gr.Gallery(crops, selected_index=0, visible=True if len(crops) > 1 else "hidden"),
            gr.Checkbox(value=here is not None and here.close_up, interactive=here is not None),
            gr.Radio(value="changed", interactive=here is not None),
            *[gr.Button(interactive=here is not None)] * (2 + len(p.moves)),
        ]

    def opened(model: str, source: bytes, name: str) -> list[Any]:
        try:
            here = Session(editors[editors.name(model)], source, name, editors.name(model))
        except ImageError as error:
            return closed(model, f"**This photo can't be edited**: {html.escape(str(error))}")
        if source == EXAMPLE.read_bytes():
            here.turn(FIRST_EDITS)
        return [gr.Markdown(visible=False), *seen(here)[:-1], *arranged(model, here)]

    def closed(model: str, message: str = "") -> list[Any]:
        return [gr.Markdown(message, visible=bool(message)), *[None] * 5, *arranged(model, None)]

    @contextmanager
    def using(here: Session | None) -> Iterator[Session]:
        if here is None:
            raise gr.Error(GONE, title="No photo", print_exception=False)
        with here.lock:
            yield here

    def open_photo(path: str | None, model: str) -> list[Any]:
        return closed(model) if path is None else opened(model, read_file(path), Path(path).stem)

    def change_model(here: Session | None, model: str) -> list[Any]:
        try:
            return closed(model) if here is None else opened(model, here.source, here.name)
        except WeightsError as error:
            label = next(label for label, key in editors.choices if key == model)  # the error's text may have a path
            raise gr.Error(f"the model {label} can't be loaded", print_exception=False) from error

    def move(here: Session | None, value: float, i: int) -> list[Any]:
        with using(here) as here:
            here.move(here.attributes[i], value)
            return [here, *photos(here), drawn(here) if here.plane_is_quick else gr.skip(), here.shown]

    def become(here: Session | None, name: str) -> list[Any]:
        with using(here) as here:
            here.become(name)
            return all_seen(here)

    def show(here: Session | None, name: str) -> list[Any]:
        with using(here) as here:
            here.show(name)
            return [here, drawn(here)]

    def draw(here: Session | None) -> Any:
        """The plane that a slider turned to, after the photo."""
        with here.lock if here else nullcontext():
            return drawn(here) if here else None

    def frame(here: Session | None, close_up: bool, paste: Paste) -> list[Any]:
        with using(here) as here:
            here.close_up, here.paste = close_up, paste
            return seen(here)

    def look(view: str) -> list[Any]:
        return [gr.Row(visible=view == BESIDE), gr.ImageSlider(visible=view == DIVIDER)]

    def pick(here: Session | None, event: gr.SelectData) -> list[Any]:
        with using(here) as here:
            here.pick(*event.index)
            return all_seen(here)

    def nudge(here: Session | None, right: int, up: int) -> list[Any]:
        with using(here) as here:
            here.nudge(right, up)
            return all_seen(here)

    def choose(here: Session | None, event: gr.SelectData) -> list[Any]:
        with using(here) as here:
            here.choose(event.index)
            return all_seen(here)

    def take_back(here: Session | None) -> list[Any]:
        with using(here) as here:
            here.reset()
            return all_seen(here)

    def save(here: Session | None) -> str:
        with using(here) as here:
            return _kept(here.download(), f"{here.name}-edited.png")

    on = functools.partial(
        gr.on,
        api_visibility="private",
        concurrency_id="edits",
        concurrency_limit=AT_ONCE,
        trigger_mode="always_last",  # of what happens while one is worked at, only the last is worked at
    )
    live = functools.partial(on, show_progress="hidden")
    opens = functools.partial(on, show_progress_on=[p.after, p.compare])
    shown_photos = [p.before, p.after, p.compare]
    change = [p.session, *shown_photos, p.plane, p.shown]
    everything = [*change, *p.sliders, *p.groups]
    rests = [p.shown, p.kinds, p.faces, p.close_up, p.paste, p.reset, p.download, *p.moves.values()]
    photo = [p.message, p.session, *shown_photos, p.plane, *p.sliders, *p.groups, *rests]

    # Gradio's own opens the photo, and says no more than that there was an error
    p.photo.preprocess = lambda payload: payload and payload.path
    on([p.page.load, p.example.click], lambda: _kept(EXAMPLE.read_bytes(), EXAMPLE.name), None, [p.photo])
    opens([p.photo.change], open_photo, [p.photo, p.chosen], photo)
    opens([p.chosen.input], change_model, [p.session, p.chosen], photo)
    for i, slider in enumerate(p.sliders):
        live([slider.input], functools.partial(move, i=i), [p.session, slider], change)
    for group in p.groups:
        live([group.input], become, [p.session, group], everything)
    live([p.shown.input], show, [p.session, p.shown], [p.session, p.plane])
    live([p.shown.change], draw, [p.session], [p.plane])
    live([p.close_up.input, p.paste.input], frame, [p.session, p.close_up, p.paste], change)
    live([p.view.change], look, [p.view], [p.beside, p.compare])
    live([p.plane.select], pick, [p.session], everything)
    for name, (right, up) in MOVES.items():
        live([p.moves[name].click], functools.partial(nudge, right=right, up=up), [p.session], everything)
    live([p.faces.select], choose, [p.session], everything)
    live([p.reset.click], take_back, [p.session], everything)
    on([p.download.click], save, [p.session], [p.file], show_progress_on=p.download).then(None, js=FETCH)


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(f"can't listen on {host}, port {port} ({reason}): give another port or host") from error


def _kept(data: bytes, name: str) -> str:
    """The path of a file with this content in the page's folder; each use makes it young again."""
    path = own_folder() / hashlib.sha256(data).hexdigest() / name
    try:
        os.utime(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        with hub.replacing(path) as temporary:
            temporary.write_bytes(data)
    return str(path)
