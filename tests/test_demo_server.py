"""The page's server: whom it answers, how much it takes, and when its files go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from csvae_hub.demo.folder import sweep
from csvae_hub.demo.guard import MAX_JSON, Guard

JSON = ("content-type", "application/json")
FORM = ("content-type", "multipart/form-data; boundary=x")
HOST = ("host", "localhost:7860")
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


async def page(scope, receive, send):
    """Reads all and answers 200 with its length; a broken connection is an error."""
    size, more = 0, scope["type"] == "http"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def answer(*headers, method="POST", body=b"", chunk=1 << 16, hosts=(), path="/gradio_api/queue/join"):
    """The status with which a request is answered, and how much of it was read."""
    pieces = [body[i : i + chunk] for i in range(0, len(body), chunk)] or [b""]
    read, sent = [], []

    async def receive():
        i = len(read)
        read.append(pieces[i])
        return {"type": "http.request", "body": pieces[i], "more_body": i + 1 < len(pieces)}

    async def send(message):
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers]
    guard = Guard(page, hosts, 1000, lambda: {0, 7})
    asyncio.run(guard({"type": "http", "method": method, "headers": pairs, "path": path}, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], len(b"".join(read))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:7860", 200),
        ("[::1]:7860", 200),
        ("192.168.3.4:7860", 200),
        ("faces.example", 200),
        ("evil.example", 403),
        ("evil.example:7860", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[", 403),
        ("", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_names_that_are_not_the_pages_are_refused(host, status, method):
    assert answer(("host", host), method=method, hosts=["faces.example"])[0] == status
    assert answer(("host", host), method=method, hosts=["*"])[0] == (200 if host != "[" else 403)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:7860", 200),
        ("https://faces.example", 200),
        ("http://localhost:3000", 403),
        ("http://evil.example", 403),
        ("http://6.6.6.6", 403),
        ("null", 403),
    ],
)
def test_other_sites_cannot_send(origin, status):
    for kind in (JSON, FORM):
        assert answer(HOST, kind, ("origin", origin), hosts=["faces.example"])[0] == status
    assert answer(HOST, ("origin", origin), method="GET")[0] == 200


@pytest.mark.parametrize("tells", [True, False])
def test_a_long_body_is_refused_and_not_read(tells):
    body = b" " * (60 << 20)
    length = [("content-length", str(len(body)))] if tells else []
    status, read = answer(HOST, JSON, *length, body=body)
    assert status == 413
    assert read <= (0 if tells else MAX_JSON + (1 << 17))


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("chunk", [7, 100])
def test_an_upload_is_bounded_in_size_and_in_number(tells, chunk):
    for body, status in ((PART + b"x" * 200, 200), (PART + b"x" * 2000, 413), (PART * 5, 413), (PART.lower() * 5, 413)):
        length = [("content-length", str(len(body)))] if tells else []
        assert answer(HOST, FORM, *length, body=body, chunk=chunk)[0] == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"fn_index": 7}, 200),
        ({"fn_index": 8}, 404),
        ({"fn_index": "7"}, 404),
        ({"fn_index": [1]}, 404),
        ({"fn_index": False}, 404),
        ({"fn_index": 7.0}, 404),
        ({"data": []}, 200),
        ([1], 200),
    ],
)
def test_unknown_functions_are_not_found(body, status):
    sent = json.dumps(body).encode()
    assert answer(HOST, JSON, body=sent) == (status, len(sent))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path", ["run/predict", "run/999", "api/nosuch", "call/nosuch", "call/x/y", "component_server"]
)
def test_functions_are_not_called_by_name(path, method):
    for root in ("/", "/gradio_api/", "/behind/a/proxy/gradio_api/"):
        assert answer(HOST, JSON, body=b'{"data": []}', path=root + path, method=method)[0] == 404
    assert answer(HOST, JSON, path="/assets/run-time.js", method="GET")[0] == 200


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_a_bad_request(body):
    assert answer(HOST, JSON, body=body)[0] == 400


# -- files ----------------------------------------------------------------------------------------------------------


def test_old_files_go_and_young_ones_stay(tmp_path):
    old, young, outside = (
        tmp_path / "a/old.jpg",
        tmp_path / "b/young.jpg",
        tmp_path.with_name(f"{tmp_path.name}-outside"),
    )
    outside.mkdir()
    for path in (old, young, outside / "kept"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
        os.utime(path.parent, (0, 0))
    (tmp_path / "link").symlink_to(outside)
    os.utime(tmp_path / "link", (0, 0), follow_symlinks=False)
    os.utime(young)
    sweep(tmp_path, age=300)
    assert sorted(path.name for path in tmp_path.rglob("*")) in (["b", "young.jpg"], ["a", "b", "young.jpg"])
    assert (outside / "kept").exists()


SERVER = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this
import sys, tempfile
from pathlib import Path
from csvae_hub.demo import folder
folder.KEPT, folder.EVERY = 3, 0.2
import csvae_hub
from csvae_hub.demo import build, start
page = build(str(Path(csvae_hub.__file__).parent / "weights/celeba-64"), "cpu")
page_folder = folder.own_folder()
(page_folder / "upload").mkdir()
(page_folder / "upload/photo.jpg").write_bytes(b"x")
print(start(page, port=None), page_folder, flush=True)
page.block_thread()
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_files_are_deleted_in_time_and_on_any_end(tmp_path, end):
    stale = tmp_path / "csvae-demo-999999999-ab"
    stale.mkdir()
    (stale / "photo.jpg").write_bytes(b"x")
    other = tmp_path / "of-another-page.jpg"
    other.write_bytes(b"x")
    os.utime(other, (0, 0))
    with (tmp_path.with_name("log")).open("w") as log:
        environment = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path)}
        command = [sys.executable, "-W", "ignore", "-c", SERVER]
        run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        address, name = run.stdout.readline().split()
        folder = Path(name)
        assert folder.parent == tmp_path
        assert not stale.exists()
        config = urllib.request.urlopen(f"{address}config").read().decode()
        assert "weights/celeba-64" not in config
        assert str(tmp_path) not in config
        strange = urllib.request.Request(f"{address}config", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(strange)
        no_file = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc\r\n--x--\r\n'
        upload = urllib.request.Request(f"{address}gradio_api/upload", no_file, {FORM[0]: FORM[1]})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(upload)
        deadline = time.monotonic() + 20
        while list(folder.rglob("*.jpg")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        (folder / "new.jpg").write_bytes(b"x")
        run.send_signal(end)
        run.wait(60)
        assert folder.exists() == (end == signal.SIGKILL)  # the next start deletes it: see `stale`
        assert other.exists()
    finally:
        run.kill()
        run.wait()
        run.stdout.close()
