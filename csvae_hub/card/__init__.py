"""The model card of a weights folder: README.md made from the folder's JSON files, with front matter for the Hub.

A card says what the files say and nothing else: what a file leaves out, the card leaves out or calls not stated.
"""

from csvae_hub.card.making import CARD, CLASSES, PICTURE, make_card, with_results
from csvae_hub.card.tables import METRICS, eval_results, figures

__all__ = ["CARD", "CLASSES", "METRICS", "PICTURE", "eval_results", "figures", "make_card", "with_results"]
