"""XMP of an edited picture: cleaned of claims that are no longer true, and marked as edited by a trained model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from csvae_hub import __version__
from csvae_hub.opening import opened

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's digital source type of a photo in which a trained model drew something."""
MAX_BYTES = 4 << 20
"""Longer XMP is not kept."""

_AGENT = f"csvae-hub {__version__}"
_GOOGLE = "http://ns.google.com/photos/1.0/"
_GONE = {
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.apple.com/pixeldatainfo/1.0/",
    "http://ns.adobe.com/xmp/note/",  # names a second block of XMP
    *(f"{_GOOGLE}{part}/" for part in ("camera", "container", "container/item", "depthmap", "image", "audio")),
}
"""Namespaces of gain maps, motion clips, depth maps and other blocks beside the pixels, none of which is kept."""
_USUAL = {"hdrgm", "HDRGainMap", "GCamera", "Container", "GContainer", "GDepth", "GImage", "GAudio", "xmpNote"}
_IPTC, _MM, _EVENT = (
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "http://ns.adobe.com/xap/1.0/mm/",
    "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
)
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


def clean(xmp: object) -> str:
    """Gives XMP that is true of an edited, upright picture: no thumbnails, gain maps, clips, or other orientation.

    It raises ValueError for what is no UTF-8 or too long.
    """
    text = xmp.decode("utf-8") if isinstance(xmp, bytes) else str(xmp)
    if len(text) > MAX_BYTES:
        raise ValueError(f"XMP of {len(text)} bytes")
    names = sorted(_USUAL | set(_prefixes(text, _GONE)))
    text = re.sub(rf"""\s(?:{"|".join(map(re.escape, names))}):[\w.-]+\s*=\s*(?:"[^"]*"|'[^']*')""", "", text)
    for tag in [f"(?:{'|'.join(map(re.escape, names))}):[\\w.-]+", "(?:xmp|xap):Thumbnails"]:
        text = _without(text, tag)
    return re.sub(r"""(tiff:Orientation(?:\s*=\s*["']|>))\s*\d""", r"\g<1>1", text)


def history(model: str, values: Mapping[str, Any]) -> str:
    """Words for a picture's history: the model and the values that attributes were set to."""
    name = Path(model).name if os.sep in model and Path(model).exists() else model
    said = (f"{attribute}={_said(value)}" for attribute, value in values.items())
    return "; ".join([f"model {name}" if name else "a model", *said])


def marked(xmp: str, parameters: str) -> str:
    """XMP that also says that the picture is a composite with trained algorithmic media, and by which edit."""
    for prefix in {"Iptc4xmpExt", *_prefixes(xmp, {_IPTC})}:
        xmp = re.sub(rf"""\s{re.escape(prefix)}:DigitalSourceType\s*=\s*(?:"[^"]*"|'[^']*')""", "", xmp)
        xmp = _without(xmp, f"{re.escape(prefix)}:DigitalSourceType")
    parameters = escape("".join(letter if letter.isprintable() else " " for letter in parameters))
    event = (
        f'<rdf:li rdf:parseType="Resource" xmlns:stEvt="{_EVENT}"><stEvt:action>edited</stEvt:action>'
        f"<stEvt:softwareAgent>{_AGENT}</stEvt:softwareAgent>"
        f"<stEvt:parameters>{parameters}</stEvt:parameters></rdf:li>"
    )
    earlier = xmp.find(":History")
    end = xmp.find("</rdf:Seq>", earlier) if earlier >= 0 else -1
    if end >= 0:
        xmp, event = xmp[:end] + event + xmp[end:], ""
    else:
        event = f"<xmpMM:History><rdf:Seq>{event}</rdf:Seq></xmpMM:History>"
    block = (
        f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{_IPTC}" xmlns:xmpMM="{_MM}">'
        f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>{event}</rdf:Description>"
    )
    if (at := xmp.rfind("</rdf:RDF>")) >= 0:
        return xmp[:at] + block + xmp[at:]
    block = f'<rdf:RDF xmlns:rdf="{_RDF}">{block}</rdf:RDF>'
    if (at := xmp.rfind("</x:xmpmeta>")) >= 0:
        return xmp[:at] + block + xmp[at:]
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'{block}</x:xmpmeta><?xpacket end="w"?>'
    )


def read_mark(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Reads the mark of an edited photo: its digital source type and the history of edits; None without a mark.

    Raises:
        OSError: the file can't be read, or is no picture.
        ImageError: it has too many pixels.
    """
    with Path(path).open("rb") as file, opened(file) as picture:
        if picture.format == "PNG":
            picture.load()  # the text may come after the pixels
        xmp = picture.info.get("xmp", b"")
    xmp = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    source = re.search(r"DigitalSourceType>([^<]{0,200})<", xmp)
    if source is None:
        return None
    events = re.findall(
        r"<stEvt:softwareAgent>(csvae-hub[^<]{0,80})</stEvt:softwareAgent>"
        r"<stEvt:parameters>([^<]{0,10000})</stEvt:parameters>",
        xmp,
    )
    edits = [{"software": software, "parameters": unescape(parameters)} for software, parameters in events]
    return {"digital_source_type": source[1], "edits": edits}


def _prefixes(xmp: str, namespaces: set[str]) -> Iterator[str]:
    """The prefixes that XMP declares for some namespaces."""
    declared = re.findall(r"""\sxmlns:([\w.-]+)\s*=\s*["']([^"'<>]*)["']""", xmp)
    return (prefix for prefix, namespace in declared if namespace in namespaces)


def _without(xmp: str, tag: str) -> str:
    """XMP without the elements of a tag, a pattern; the first that has no end ends the search."""
    kept, at = [], 0
    for start in re.finditer(rf"<({tag})(?=[\s/>])[^>]*>", xmp):
        if start.start() < at:
            continue  # it lies in one that is gone
        end = start.end()
        if not start[0].endswith("/>"):
            end = xmp.find(f"</{start[1]}>", end)
            if end < 0:
                break
            end += len(start[1]) + 3
        kept.append(xmp[at : start.start()])
        at = end
    return "".join([*kept, xmp[at:]])


def _said(value: Any) -> str:
    if isinstance(value, bool | int | float | str):
        return f"{value}"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "taken from a picture"
