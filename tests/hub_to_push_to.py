"""A hub on this machine's loopback that takes one repository: the endpoints that an upload asks for."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """`files` was committed, `made` asked of the repository, `status` answers everything."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.made: dict[str, Any] = {}
        self.tokens: set[str | None] = set()
        self.status = 200
        self.private: bool | None = None  # of the repository, once it is there

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def do_GET(self) -> None:
        self.body()
        self.answer({"id": "ann/model", "sha": "0" * 40, "siblings": [], "private": self.server.private})

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_POST(self) -> None:
        body = self.body()
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.status != 200:
            self.answer({"error": "words of the server"})
        elif self.path == "/api/repos/create":
            there = self.server.private is not None
            self.server.made = json.loads(body)
            if not there:
                made = self.server.made
                self.server.private = made.get("visibility") == "private" or bool(made.get("private"))
            found = {"url": f"{self.server.address}/ann/model", "id": "ann/model", "name": "ann/model"}
            self.answer(found, 409 if there else None)
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = [each["path"] for each in json.loads(body)["files"]]
            self.answer({"files": [{"path": path, "uploadMode": mode(path), "shouldIgnore": False} for path in files]})
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            self.answer({"transfer": "basic", "objects": [self.upload(each) for each in objects]})
        elif self.path.endswith("/commit/main"):
            self.commit([json.loads(line) for line in body.splitlines()])
        else:
            self.answer({"error": self.path}, 404)

    def upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return {**wanted, "actions": {"upload": {"href": f"{self.server.address}/objects/{wanted['oid']}"}}}

    def commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
        found = {"commitOid": "1" * 40, "commitUrl": f"{self.server.address}/ann/model/commit/{'1' * 40}"}
        self.answer({**found, "success": True, "hookOutput": ""})

    def answer(self, value: Any, status: int | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status or self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".gguf")) else "regular"


@contextmanager
def running() -> Iterator[Hub]:
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()
