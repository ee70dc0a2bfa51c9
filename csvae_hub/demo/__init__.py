"""A page in the browser that edits faces: `csvae demo`. Gradio is imported when the page is built."""

from csvae_hub.demo.page import build, start
from csvae_hub.demo.session import Session

__all__ = ["Session", "build", "start"]
