"""A hub of one dataset on this machine's loopback: what huggingface_hub and `datasets` ask of the real one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

OWNER, GATED = "/api/datasets/ann/rows", "/api/datasets/ann/gated"


class Hub(ThreadingHTTPServer):
    """`commits` are the files of each commit, the last of which is main; `asked` and `tokens` are of all requests."""

    def __init__(self, commits: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits, self.asked, self.tokens = commits, list[str](), set[str | None]()

    def commit(self, revision: str) -> str | None:
        return list(self.commits)[-1] if revision == "main" else revision if revision in self.commits else None


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        asked = self.rfile.read(length).decode()
        path = urlsplit(self.path).path
        if path.startswith(f"{OWNER}/paths-info/"):
            commit = self.server.commit(unquote(path.rpartition("/")[2])) or ""
            self.answer(200, [entry(name, data) for name, data in self.server.commits[commit].items() if name in asked])
        else:
            self.refuse("EntryNotFound")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        self.server.tokens.add(self.headers.get("Authorization"))
        match path.removeprefix(OWNER).strip("/").split("/", 2) if path.startswith(OWNER) else []:
            case [""]:
                self.info("main")
            case ["revision", revision]:
                self.info(revision)
            case ["tree", revision, *_]:
                files = self.server.commits[self.server.commit(revision) or ""]
                under = path.partition(f"/tree/{revision}")[2].strip("/")
                self.answer(200, tree(files, under))
            case _ if path.startswith("/datasets/ann/rows/resolve/"):
                self.file(*path.removeprefix("/datasets/ann/rows/resolve/").split("/", 1))
            case _:
                self.refuse("GatedRepo" if path.startswith(GATED) else "RepoNotFound")

    def info(self, revision: str) -> None:
        commit = self.server.commit(revision)
        if commit is None:
            return self.refuse("RevisionNotFound")
        siblings = [{"rfilename": name} for name in self.server.commits[commit]]
        return self.answer(200, {"id": "ann/rows", "sha": commit, "siblings": siblings, "private": False, "tags": []})

    def file(self, revision: str, name: str) -> None:
        commit = self.server.commit(revision)
        data = self.server.commits[commit].get(name) if commit else None
        if commit is None or data is None:
            return self.refuse("EntryNotFound")
        return self.send(200, data, {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": commit})

    def refuse(self, code: str) -> None:
        status = 403 if code == "GatedRepo" else 404
        self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, status: int, value: Any) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def entry(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": sha256(data).hexdigest()[:40]}


def tree(files: dict[str, bytes], under: str) -> list[dict[str, Any]]:
    """Files and folders, all the way down."""
    start = f"{under}/" if under else ""
    inside = {name: data for name, data in files.items() if name.startswith(start)}
    folders = {name.rpartition("/")[0] for name in inside} - {"", under}
    return [
        *({"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in sorted(folders)),
        *(entry(name, data) for name, data in inside.items()),
    ]


@contextmanager
def serving(commits: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    with Hub(commits) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
