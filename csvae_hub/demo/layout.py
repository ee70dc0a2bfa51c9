"""The components of the page and their style."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from csvae_hub.demo.editors import Editors
from csvae_hub.demo.folder import KEPT
from csvae_hub.demo.session import HIGHEST, LOWEST, MAX_PIXELS

if TYPE_CHECKING:
    import gradio as gr

MAX_MEGABYTES = 20
"""Of an upload."""
PHOTO_KEPT = 3600
"""Seconds after its last change until a photo is forgotten."""

BESIDE, DIVIDER = "Side by side", "Divider"
PASTES = [("Where it changes", "changed"), ("The change alone", "difference"), ("The whole face", "whole")]
"""Labels and names of the ways to put an edit back."""

HEADER = """
<header>
  <h1>csvae-hub</h1>
  <p>Change one attribute of a face and leave the rest: move a slider, or pick <em>which</em> kind in its plane.</p>
</header>
"""
MOVES = {"left": (-1, 0), "right": (1, 0), "down": (0, -1), "up": (0, 1)}
"""Buttons that move the point of the plane, with their steps to the right and upwards."""
PROBLEM = '<div id="problem" role="alert"></div>'
"""The last error that a passing message told; `page.js` fills it."""
NOTES = f"""
Sliders go from 0, absent, to 1, present, and a little beyond. The plane shows this face with every kind of one
attribute; the ring is where it is now: click elsewhere, or move it by the arrow keys or the buttons. Photos may have
{MAX_MEGABYTES} MB and {MAX_PIXELS / 1e6:g} megapixels. They stay on the machine that runs this page: its files are
deleted after {KEPT // 60} minutes, and the photo is forgotten {PHOTO_KEPT // 60} minutes after your last change. A
downloaded photo says in its metadata that it was edited.

[Licence of the code: MIT](https://opensource.org/license/mit) ·
[Licence of these weights: non-commercial research](https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html) ·
[The paper](https://arxiv.org/abs/1812.06190) · Documents of each model: below
"""
CSS = """
.gradio-container { max-width: 1400px !important; }
.gradio-container > .main { padding: 14px 18px !important; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 16px; }
header h1 { font-size: 1.6rem; font-weight: 700; margin: 0; }
header p { margin: 0; opacity: 0.8; }
#sliders .form { display: grid; grid-template-columns: 1fr 1fr; gap: 0; }
#sliders .block { padding: 5px 12px; border: none; min-width: 0 !important; }
#sliders .head { align-items: center; min-height: 30px; }
#sliders .head input { width: 52px; padding: 0 4px; text-align: center; appearance: textfield; }
#sliders .head input::-webkit-inner-spin-button { display: none; }
#sliders .min_value, #sliders .max_value { display: none; }
.block:has(#problem:empty) { display: none; }
#message, #problem { border-left: 4px solid #d9480f; padding: 8px 12px; }
#plane img { cursor: crosshair; }
#compare { min-height: 300px; }
#beside img { width: 100%; height: 100%; object-fit: contain; }
.notes { font-size: 0.85rem; opacity: 0.8; max-width: 75em; }
footer { display: none !important; }
"""


class Parts:
    """The page with everything in its place, and the components that its callbacks read and alter."""

    def __init__(self, editors: Editors) -> None:
        import gradio as gr

        models = editors.choices
        image = functools.partial(gr.Image, interactive=False)
        with gr.Blocks(title="csvae-hub", analytics_enabled=False) as self.page:
            self.session = gr.State(time_to_live=PHOTO_KEPT)
            gr.HTML(HEADER, padding=False)
            with gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=250):
                    self.photo = gr.Image(label="Photo", type="filepath", height=240, buttons=[], elem_id="photo")
                    self.example = gr.Button("Example photo", size="sm", elem_id="example")
                    self.faces = gr.Gallery(
                        label="Face",
                        columns=4,
                        height="auto",
                        allow_preview=False,
                        buttons=[],
                        elem_id="faces",
                        visible="hidden",
                    )
                    self.chosen = gr.Dropdown(
                        models, value=models[0][1], label="Model", visible=len(models) > 1, elem_id="model"
                    )
                with gr.Column(scale=13, min_width=320):
                    gr.HTML(PROBLEM, padding=False)
                    self.message = gr.Markdown(visible=False, elem_id="message")
                    with gr.Row(elem_id="beside") as self.beside:
                        self.before = image(label="Before", buttons=["fullscreen"], height=400, elem_id="before")
                        self.after = image(label="After", buttons=["fullscreen"], height=400, elem_id="after")
                    self.compare = gr.ImageSlider(
                        label="Before and after",
                        type="filepath",
                        max_height=560,
                        visible=False,
                        elem_id="compare",
                        buttons=["fullscreen"],
                    )
                    with gr.Row():
                        self.reset = gr.Button("Reset", elem_id="reset")
                        self.download = gr.Button("Download PNG", variant="primary", elem_id="download")
                        self.file = gr.DownloadButton(visible="hidden", elem_id="file")
                    with gr.Row():
                        self.view = gr.Radio([BESIDE, DIVIDER], value=BESIDE, label="View", elem_id="view")
                        self.paste = gr.Radio(PASTES, value="changed", label="Put back", elem_id="paste")
                    self.close_up = gr.Checkbox(label="Close-up of the face", container=False, elem_id="close-up")
                with gr.Column(scale=8, min_width=320):
                    slider = functools.partial(gr.Slider, LOWEST, HIGHEST, 0, step=0.01, buttons=[])
                    with gr.Group(elem_id="sliders"):
                        self.sliders = [slider(elem_id=f"slider-{i}") for i in range(editors.most)]
                    self.groups = [
                        gr.Radio(label="One of these", visible=False, elem_id=f"group-{i}")
                        for i in range(editors.most_groups)
                    ]
                    with gr.Column() as self.kinds:
                        self.shown = gr.Dropdown(label="Which kind? Click a point of the plane of", elem_id="shown")
                        self.plane = image(show_label=False, buttons=[], height=310, elem_id="plane")
                        with gr.Row():
                            move = functools.partial(gr.Button, size="sm", min_width=50)
                            self.moves = {name: move(name.title(), elem_id=f"plane-{name}") for name in MOVES}
            gr.Markdown(NOTES, elem_classes="notes")
            for name, card in editors.cards().items():
                with gr.Accordion(f"Model card of {name}: licence, figures, limits", open=False):
                    gr.Markdown(card, elem_classes="notes")


def theme() -> gr.themes.Base:
    """Gradio's own, in the fonts of the visitor's system, so that none is fetched from elsewhere."""
    import gradio as gr

    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        spacing_size="sm",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
