"""Refuses requests that a visitor of the page doesn't make: for other hosts, from other sites, or with too much."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_JSON = 1 << 20
"""Bytes of a request that is no upload."""
MAX_PARTS = 4
"""Parts of an upload; the page sends one photo at a time."""
SAFE = ("GET", "HEAD", "OPTIONS")
DIRECT = re.compile(r"/(run|api|call|component_server)(/|$)")
"""Paths that call a function by its name in one request; the page asks for its own by a number, in the queue."""
_PART = b"content-disposition:"


class Guard:
    """ASGI middleware around the page, `app`; `functions` gives the numbers of the page's functions.

    `hosts` are names under which the page may be asked for, besides numbers, localhost and this machine's own name, so
    that no other site can read it by pointing a name of its own here (DNS rebinding). `max_upload` is in bytes.
    """

    def __init__(
        self, app: Any, hosts: Collection[str], max_upload: int, functions: Callable[[], Collection[int]]
    ) -> None:
        self.app, self.max_upload, self.functions = app, max_upload, functions
        self.hosts = {host.lower() for host in (*hosts, os.environ.get("SPACE_HOST", "")) if host}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request, or lets the page answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if fault := self._fault_of_place(scope, headers):
            await _refuse(send, 403, fault)
        elif DIRECT.search(scope.get("path", "")):
            await _refuse(send, 404, "there is no such function")
        elif scope["type"] == "websocket" or scope["method"] in SAFE:
            await self.app(scope, receive, send)
        elif headers.get("content-type", "").lower().startswith("multipart/"):
            await self._upload(scope, receive, send, headers)
        else:
            await self._small(scope, receive, send, headers)

    def _fault_of_place(self, scope: Message, headers: dict[str, str]) -> str:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return "this page is not served under that name: start it with hosts=[...] to allow it"
        origin = headers.get("origin")
        if origin is None or (scope["type"] == "http" and scope["method"] in SAFE):
            return ""
        sender = urlsplit(origin)
        is_same = sender.netloc.lower() == host.lower() or (sender.hostname or "") in self.hosts
        return "" if is_same else "requests of other sites are not answered"

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if not {"*", name} & {*self.hosts, "localhost", socket.gethostname().lower()}:
                ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    async def _small(self, scope: Message, receive: Receive, send: Send, headers: dict[str, str]) -> None:
        """A request whose body is read at once: it is short, JSON, and asks for a function that there is."""
        body, more = bytearray(), _length(headers) <= MAX_JSON
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message["type"] == "http.request" and message.get("more_body", False) and len(body) <= MAX_JSON
        if max(_length(headers), len(body)) > MAX_JSON:
            await _refuse(send, 413, f"expected at most {MAX_JSON} bytes")
            return
        if headers.get("content-type", "").lower().startswith("application/json"):
            try:
                asked = json.loads(body or b"{}")
            except (ValueError, RecursionError):
                await _refuse(send, 400, "expected JSON")
                return
            number = asked.get("fn_index") if isinstance(asked, dict) else None
            if number is not None and (type(number) is not int or number not in self.functions()):
                await _refuse(send, 404, "there is no such function")
                return
        messages = iter([{"type": "http.request", "body": bytes(body), "more_body": False}])

        async def replay() -> Message:
            return next(messages, None) or await receive()

        await self.app(scope, replay, send)

    async def _upload(self, scope: Message, receive: Receive, send: Send, headers: dict[str, str]) -> None:
        """A request whose body is counted while it comes, and broken off where it is too much."""
        size, parts, tail, too_much, began = 0, 0, b"", _length(headers) > self.max_upload, False

        async def counted() -> Message:
            nonlocal size, parts, tail, too_much
            message = await receive()
            chunk = tail + message.get("body", b"").lower()
            size, parts, tail = size + len(chunk) - len(tail), parts + chunk.count(_PART), chunk[1 - len(_PART) :]
            too_much = too_much or size > self.max_upload or parts > MAX_PARTS
            return {"type": "http.disconnect"} if too_much else message

        async def watched(message: Message) -> None:
            nonlocal began
            if not too_much:
                began = True
                await send(message)

        if not too_much:
            try:
                await self.app(scope, counted, watched)
            except Exception as error:
                if not too_much and (began or not isinstance(error, TypeError)):
                    raise
                if not too_much:  # a part that is no file, as Gradio finds it
                    await _refuse(send, 400, "expected a photo's file")
        if too_much and not began:
            await _refuse(send, 413, f"expected one photo of at most {self.max_upload} bytes")


def _length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


async def _refuse(send: Send, status: int, words: str) -> None:
    body = words.encode()
    told = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), "connection": "close"}
    headers = [(name.encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
