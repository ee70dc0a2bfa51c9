"""A Hub on 127.0.0.1 that huggingface_hub's own client can push to and pull from; standard library only.

Large files are answered with a redirect to another host name, as the Hub sends its client to a CDN, so that a token
that is sent there is seen. `HubServer.troubled` makes answers slow, short, wrong or absent.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKENS = {"hf_alice": "alice", "hf_bob": "bob"}


@dataclass
class Repo:
    """Commits (id to {path: (content, is it large)}) and what names them."""

    owner: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.commit("main", {".gitattributes": (b"*.safetensors filter=lfs\n", False)}, "initial commit")

    def commit(self, branch, files, message):
        parent = self.commits.get(self.branches.get(branch, ""), {})
        content = {**parent, **files}
        name = hashlib.sha1(repr((branch, message, len(self.commits), sorted(content))).encode()).hexdigest()
        self.commits[name] = content
        self.branches[branch] = name
        self.messages.append(message)
        return name

    def find(self, revision):
        name = self.branches.get(revision) or self.tags.get(revision) or revision
        matches = [commit for commit in self.commits if len(name) >= 7 and commit.startswith(name)]
        return matches[0] if matches else None


class HubServer:
    """The server: `repos` by id, `requests` that came, `troubled` answers; while `stopped` it keeps port and repos."""

    def __init__(self):
        self.repos = {}
        self.blobs = {}
        self.log = []
        self.trouble = []
        self.connections = set()
        self.lock = threading.Lock()
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self._http = _Http(("127.0.0.1", self.port), _Handler)
        self._http.hub = self
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()
        for connection in tuple(self.connections):
            with suppress(OSError):
                connection.shutdown(2)

    @contextmanager
    def stopped(self):
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def troubled(self, pattern, kind, value=0, times=10**9):
        """Answers to a matching "METHOD path" go wrong, so many times.

        Kinds: "slow" by seconds; "cut" off after bytes; "short" by bytes, and saying so; "flip" of a bit of the byte at
        a place; "status" of a number; "page", which is no JSON; "header" of a name and a value.
        """
        entry = [re.compile(pattern), kind, value, times]
        self.trouble.append(entry)
        try:
            yield
        finally:
            self.trouble.remove(entry)

    def requests(self, pattern="."):
        """The headers of all requests so far whose "METHOD path" matches."""
        with self.lock:
            return [headers for line, headers in self.log if re.search(pattern, line)]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.hub = self.server.hub
        self.hub.connections.add(self.connection)

    def finish(self):
        self.hub.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format, *args):
        pass

    def _serve(self):
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        with self.hub.lock:
            self.hub.log.append((line, self.headers))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.wrong = {}
        for entry in self.hub.trouble:
            if entry[3] > 0 and entry[0].search(line):
                entry[3] -= 1
                self.wrong[entry[1]] = entry[2]
        threading.Event().wait(self.wrong.get("slow", 0))
        if "status" in self.wrong:
            return self._answer(self.wrong["status"], {"error": "trouble"})
        if "page" in self.wrong:
            return self._send(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user = TOKENS.get(token)
        if token and self.user is None:
            return self._refuse(401, None, "Invalid credentials in Authorization header")
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if method in self.command.replace("HEAD", "GET") and match:
                return answer(self, *match.groups(), body)
        return self._refuse(404, "EntryNotFound", f"no route for {line}")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    # -- answers --------------------------------------------------------------------------------------------------

    def _send(self, status, content, headers):
        """Content, or the range of it that was asked for; cut, short or changed where there is trouble."""
        if (at := self.wrong.get("flip")) is not None:
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        total = len(content)
        if asked and status == 200:
            start, end = int(asked[1]), int(asked[2] or total - 1)
            content = content[start : end + 1]
            status, headers = 206, {**headers, "Content-Range": f"bytes {start}-{end}/{total}"}
        content = content[: len(content) - self.wrong.get("short", 0)]
        self.send_response(status)
        for name, value in {
            "Content-Length": len(content),
            **headers,
            **dict([self.wrong.get("header", ("X", 0))]),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        whole = len(content)
        content = content[: self.wrong.get("cut", whole)]
        self.wfile.write(content)
        if len(content) < whole:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

    def _answer(self, status, content):
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status, code, message):
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps({"error": message}).encode(), {"Content-Type": "application/json", **headers})

    def _repo(self, name, *, write=False, files=False):
        """The repo, or None once the refusal is sent."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.user != repo.owner):
            self._refuse(404 if self.user else 401, "RepoNotFound", "Repository not found")
        elif write and self.user != repo.owner:
            self._refuse(403 if self.user else 401, None, "You have no right to write here")
        elif files and repo.gated and self.user != repo.owner:
            self._refuse(403 if self.user else 401, "GatedRepo", "Access to this model is restricted")
        else:
            return repo
        return None

    def _commit_of(self, repo, revision):
        commit = repo.find(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # -- routes ---------------------------------------------------------------------------------------------------

    def create(self, body):
        asked = json.loads(body)
        if self.user is None:
            return self._refuse(401, None, "Invalid username or password.")
        owner = asked.get("organization") or self.user
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repos:
            return self._answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        if owner != self.user:
            return self._refuse(403, None, f"You have no right to create under {owner}")
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repos[name] = Repo(owner, private)
        return self._answer(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": "1"})

    def validate(self, body):
        text = json.loads(body)["content"]
        valid = text.startswith("---\n") and "\n---\n" in text
        errors = [] if valid else [{"message": "front matter is missing"}]
        self._answer(200 if valid else 400, {"errors": errors, "warnings": []})

    def info(self, name, revision, body):
        repo = self._repo(name)
        commit = repo and self._commit_of(repo, revision or "main")
        if not commit:
            return
        owner, private, gated = repo.owner, repo.private, "auto" if repo.gated else False
        siblings = [{"rfilename": path} for path in repo.commits[commit]]
        content = {"id": name, "sha": commit, "author": owner, "private": private, "gated": gated, "siblings": siblings}
        self._answer(200, {**content, "tags": [], "downloads": 0, "likes": 0})

    def tree(self, name, revision, body):
        repo = self._repo(name)
        commit = repo and self._commit_of(repo, revision)
        if commit:
            files = repo.commits[commit].items()
            self._answer(200, [{"type": "file", "path": path, **_described(*entry)} for path, entry in files])

    def refs(self, name, body):
        repo = self._repo(name)
        if repo:
            kinds = (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
            content = {
                kind: [{"name": n, "ref": f"refs/{ref}/{n}", "targetCommit": c} for n, c in named.items()]
                for kind, ref, named in kinds
            }
            self._answer(200, {**content, "converts": []})

    def name_commit(self, name, kind, first, body):
        """A branch of the name in the path, or a tag, of a name in the body, on the revision in the path."""
        repo, asked = self._repo(name, write=True), json.loads(body)
        if not repo:
            return
        named = repo.branches if kind == "branch" else repo.tags
        new, start = (first, asked.get("startingPoint", "main")) if kind == "branch" else (asked["tag"], first)
        if new in named:
            self._refuse(409, None, f"{new} already exists")
        elif commit := self._commit_of(repo, start):
            named[new] = commit
            self._answer(200, {})

    def preupload(self, name, revision, body):
        repo = self._repo(name, write=not self._pull_request())
        commit = repo and self._commit_of(repo, revision)
        if not commit:
            return
        there = repo.commits[commit]
        files = [
            {
                "path": asked["path"],
                "uploadMode": "lfs" if asked["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": _identity(*there[asked["path"]]) if asked["path"] in there else None,
            }
            for asked in json.loads(body)["files"]
        ]
        self._answer(200, {"files": files})

    def batch(self, name, body):
        if self._repo(name):
            objects = [
                asked
                if asked["oid"] in self.hub.blobs
                else {**asked, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}", "header": {}}}}
                for asked in json.loads(body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})

    def put(self, oid, body):
        if hashlib.sha256(body).hexdigest() != oid:
            return self._refuse(422, None, "sha256 differs")
        self.hub.blobs[oid] = body
        return self._answer(200, {})

    def commit(self, name, revision, body):
        repo = self._repo(name, write=not self._pull_request())
        parent = repo and self._commit_of(repo, revision)
        if not parent:
            return
        files, message = {}, ""
        for item in map(json.loads, body.splitlines()):
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = (base64.b64decode(value["content"]), False)
            elif item["key"] == "lfsFile":
                files[value["path"]] = (self.hub.blobs[value["oid"]], True)
        if self._pull_request():
            branch = f"refs/pr/{1 + sum(b.startswith('refs/pr/') for b in repo.branches)}"
            repo.branches[branch] = parent
        else:
            branch = revision
        commit = repo.commit(branch, files, message)
        number = branch.rpartition("/")[2]
        pull = f"{self.hub.url}/{name}/discussions/{number}" if branch.startswith("refs/pr/") else None
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self._answer(200, {"success": True, "commitOid": commit, "commitUrl": url, "pullRequestUrl": pull})

    def resolve(self, name, revision, path, body):
        repo = self._repo(name, files=True)
        commit = repo and self._commit_of(repo, revision)
        if not commit:
            return
        if path not in repo.commits[commit]:
            self._refuse(404, "EntryNotFound", f"{path} is not there")
            return
        content, large = repo.commits[commit][path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_described(content, large)["oid"]}"'}
        if large:
            oid = hashlib.sha256(content).hexdigest()
            self.hub.blobs[oid] = content
            linked = {"X-Linked-Size": len(content), "X-Linked-Etag": f'"{oid}"', "ETag": '"of the redirect"'}
            self._send(302, b"", {**headers, **linked, "Location": f"http://localhost:{self.hub.port}/cdn/{oid}"})
        else:
            self._send(200, content, headers)

    def cdn(self, oid, body):
        self._send(200, self.hub.blobs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _pull_request(self):
        return parse_qs(urlsplit(self.path).query).get("create_pr") == ["1"]


def _identity(content, large):
    """What the client compares its own copy of a file with."""
    described = _described(content, large)
    return described["lfs"]["oid"] if large else described["oid"]


def _described(content, large):
    """Size and git id of a file; of its pointer where it is large."""
    sha = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {len(content)}\n".encode()
    stored = pointer if large else content
    described = {"oid": hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest(), "size": len(content)}
    return {**described, **({"lfs": {"oid": sha, "size": len(content), "pointerSize": len(pointer)}} if large else {})}


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", rf"/api/models/{_NAME}(?:/revision/(.+))?", _Handler.info),
    ("GET", rf"/api/models/{_NAME}/tree/(.+)", _Handler.tree),
    ("GET", rf"/api/models/{_NAME}/refs", _Handler.refs),
    ("POST", rf"/api/models/{_NAME}/(branch|tag)/(.+)", _Handler.name_commit),
    ("POST", rf"/api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _Handler.put),
    ("POST", rf"/api/models/{_NAME}/commit/(.+)", _Handler.commit),
    ("GET", rf"/{_NAME}/resolve/(refs/pr/\d+|[^/]+)/(.+)", _Handler.resolve),
    ("GET", r"/cdn/([0-9a-f]{64})", _Handler.cdn),
]
