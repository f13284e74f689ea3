"""What `doctor --auth` says of tokens and models, asked of a server that answers as the hub does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sysml_run import caches, cli, hub
from sysml_run.doctor import Check

GOOD, STALE = "hf_GoodTokenOfAdaLovelace", "hf_StaleTokenOfNobody"
RUNNER = Path(cli.__file__).parents[1]
RECIPE = """\
version: 1
name: one
model: {{base_model: {model}}}
datasets: [{{path: rows.jsonl, type: prompt_completion}}]
optimizer: {{name: adamw, learning_rate: 1e-3}}
training: {{max_steps: 2}}
"""
PUBLIC = {hub.PUBLIC, "owner/open"}
GATED = {"owner/gated": "ada-has-access", "owner/asked-not": ""}


class Hub(ThreadingHTTPServer):
    """Tokens, models and status codes of the hub; `mode` breaks it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode = ""
        self.asked: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        self.server.asked.append((self.path, token))
        mode = self.server.mode
        if mode == f"slow {self.path}":
            time.sleep(2)
        if mode.startswith("http"):
            self.answer(307, {}, location=mode + self.path)
        elif mode == "page":
            self.answer(200, "<html>log in to the hotel's network</html>")
        elif mode.isdigit():
            self.answer(int(mode), {"error": "busy"})
        elif mode == "echo" and token:
            self.answer(200 if "whoami" in self.path else 400, {"name": token[3:9]}, error_message=token, warning=token)
        elif token == STALE:
            self.answer(401, {}, error_message="Invalid credentials in Authorization header")
        elif self.path == "/api/whoami-v2":
            self.answer(200, {"type": "user", "name": "ada"})
        else:
            self.model(self.path.removeprefix("/api/models/"), bool(token))

    def model(self, name: str, token: bool) -> None:
        name, asks = name.removesuffix("/auth-check"), name.endswith("/auth-check")
        if name == "owner/renamed":
            self.answer(307, {}, location=f"/api/models/owner/open{'/auth-check' if asks else ''}")
        elif name == "owner/narrow" and token:
            self.answer(403, {"error": "the token's permissions"})
        elif name in PUBLIC or (name in GATED and not asks) or (token and GATED.get(name)):
            self.answer(200, {"id": name, "modelId": name})
        elif name in GATED:
            self.answer(403 if token else 401, {}, error_code="GatedRepo", error_message="Access is restricted")
        else:
            self.answer(404 if token else 401, {}, error_code="RepoNotFound", error_message="Repository not found")

    def answer(self, status: int, body: object, **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        names = {"error_code": "X-Error-Code", "error_message": "X-Error-Message", "warning": "X-HF-Warning"}
        for name, value in headers.items():
            self.send_header(names.get(name, name), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Hub) -> None:
    """No token, cache or proxy of this machine; the hub is the server."""
    for name in [name for name in os.environ if name.startswith("HF_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in (*caches.TOKENS, "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # as read when something imported it first
    monkeypatch.setenv("HF_ENDPOINT", f"{server.address}/")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "home/token"))
    monkeypatch.chdir(tmp_path)


def asked(*models: str) -> dict[str, Check]:
    return {check.name: check for check in hub.ask(models)}


def command(*arguments: str, **env: str) -> tuple[int, str]:
    """Exit code and everything printed by the real command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "sysml_run.cli", "doctor", *arguments],
        env={**os.environ, "PYTHONPATH": str(RUNNER), **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def silent(said: str, *tokens: str) -> bool:
    """Whether neither a token nor six characters in a row of one are said."""
    return not any(token[at : at + 6] in said for token in tokens for at in range(len(token) - 5))


def test_without_a_token_public_models_are_readable() -> None:
    found = asked("owner/open")
    assert found["network"].state == "ok"
    assert found["token"].found == "none; public models need none"
    assert found["owner/open"] == Check("access", "owner/open", "ok", "readable without a token")


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"])
def test_a_good_token(name: str) -> None:
    code, said = command("--auth", "--format", "json", **{name: GOOD})
    found = {check["name"]: check for check in json.loads(said)["checks"] if check["group"] == "access"}
    assert code == 0
    assert found["token"]["found"] == f"from {name}: accepted, user ada"
    assert silent(said, GOOD)


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"])
def test_a_stale_token_breaks_even_public_models(name: str, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(RECIPE.format(model="owner/open"))
    (tmp_path / "rows.jsonl").write_text("{}\n")
    code, said = command("one.yaml", "--auth", **{name: STALE})
    assert code == 1
    assert f"from {name}: refused by the hub; public models are readable without it and not with it" in said
    assert f"unset {name}, or set it to a token of https://huggingface.co/settings/tokens" in said
    assert "readable without the token, refused with it" in said
    assert silent(said, STALE)


@pytest.mark.parametrize("token", ["hf_GoodTök\u00e9n", "hf_Good Token", "hf_Good\x7fToken"])
def test_a_token_that_cannot_be_sent(token: str, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    found = asked("owner/open")
    assert found["token"].found == "from HF_TOKEN: holds a character that no token has"
    assert "unset HF_TOKEN" in (found["token"].mend or "")
    assert found["token"].state == "missing"
    assert found["owner/open"].found == "readable without a token"
    assert "whoami" not in str(server.asked)


def test_a_stale_token_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/token").write_text(f"{STALE}\n")
    code, said = command("--auth")
    assert code == 1
    assert f"from {tmp_path}/home/token: refused" in said
    assert "hf auth login --force" in said
    assert silent(said, STALE)


def test_a_stale_token_before_a_gated_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", STALE)
    found = asked("owner/gated", "owner/open")
    assert "gated, and" in found["owner/gated"].found
    assert found["owner/open"].found == "readable without the token, refused with it"


@pytest.mark.parametrize(
    ("model", "token", "found", "mend"),
    [
        ("owner/gated", "", "gated, and no token is here", "https://huggingface.co/owner/gated, then: hf auth login"),
        ("owner/asked-not", GOOD, "account has no access", "ask for access at https://huggingface.co/owner/asked-not"),
        (
            "owner/absent",
            "",
            "no such repository, or it is private, which takes",
            "https://huggingface.co/owner/absent",
        ),
        ("owner/absent", GOOD, "not open to this token", "compare the name"),
        ("owner/narrow", GOOD, "this token may not read it", "give it read access"),
    ],
)
def test_models_that_cannot_be_read(
    model: str, token: str, found: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    check = asked(model)[model]
    assert check.state == "missing"
    assert found in check.found
    assert mend in (check.mend or "")


@pytest.mark.parametrize("model", ["owner/gated", "owner/open", "owner/renamed"])
def test_models_that_can_be_read(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", GOOD)
    assert asked(model)[model] == Check("access", model, "ok", "readable")


def test_a_closed_port_is_no_network(server: Hub) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        code, said = command("--auth", HF_ENDPOINT=f"http://127.0.0.1:{taken.getsockname()[1]}", HF_TOKEN=GOOD)
    assert code == 1
    assert "127.0.0.1: the connection is refused" in said
    assert "whoami" not in str(server.asked)
    assert silent(said, GOOD)


@pytest.mark.parametrize(
    ("endpoint", "proxy", "reason"),
    [
        ("https://no-such-host.invalid", "", "its name cannot be resolved"),
        ("https://user:passphrase@no-such-host.invalid", "", "its name cannot be resolved"),
        ("https://{server}", "", "its certificate is not trusted, or it does not speak TLS"),
        ("https://host.invalid", "http://{server}", "the proxy refuses"),
    ],
)
def test_connections_that_fail(
    endpoint: str, proxy: str, reason: str, server: Hub, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    host = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_TOKEN", GOOD)
    monkeypatch.setenv("HF_ENDPOINT", endpoint.format(server=host))
    code, said = command("--auth", **({"HTTPS_PROXY": proxy.format(server=host)} if proxy else {}))
    assert code == 1
    assert reason in said
    assert silent(said, GOOD, "passphrase")
    assert asked()["network"].state == "missing"


@pytest.mark.parametrize(
    ("path", "name", "state"),
    [
        (f"/api/models/{hub.PUBLIC}", "network", "missing"),
        ("/api/whoami-v2", "token", "warning"),
        ("/api/models/owner/open/auth-check", "owner/open", "warning"),
    ],
)
def test_a_slow_hub_is_not_waited_for(
    path: str, name: str, state: str, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SECONDS", 0.3)
    monkeypatch.setenv("HF_TOKEN", GOOD)
    server.mode = f"slow {path}"
    check = asked("owner/open")[name]
    assert check.state == state
    assert "no answer within" in check.found


@pytest.mark.parametrize("to", ["http://localhost:{other}", "http://127.0.0.1:{other}"])
def test_no_token_follows_a_redirect(to: str, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", GOOD)
    other = Hub()
    server.mode = to.format(other=other.server_port)
    assert asked("owner/open")["network"].state == "missing"
    api = hub._api()
    assert hub._answer(lambda: api.whoami(token=GOOD)).word == "broken"
    assert server.asked[-1] == ("/api/whoami-v2", GOOD)
    assert other.asked == []
    other.shutdown()
    other.server_close()


def test_a_login_page_is_not_the_hub(server: Hub) -> None:
    server.mode = "page"
    assert "a login page, or a wrong HF_ENDPOINT" in asked()["network"].found


@pytest.mark.parametrize(("mode", "said"), [("503", "cannot be used (status 503)"), ("429", "too many requests")])
def test_a_hub_that_is_busy(mode: str, said: str, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", GOOD)
    server.mode = mode
    found = asked("owner/open")
    assert [found[name].state for name in ("network", "token", "owner/open")] == ["warning"] * 3
    assert all(said in check.found for check in found.values())


def test_what_a_server_says_is_not_repeated(server: Hub) -> None:
    server.mode = "echo"
    code, said = command("--auth", HF_TOKEN=GOOD, HF_DEBUG="1")
    assert code == 0
    assert "from HF_TOKEN: accepted\n" in said
    assert silent(said, GOOD)


def test_offline_asks_nothing(server: Hub) -> None:
    code, said = command("--auth", HF_HUB_OFFLINE="1", HF_TOKEN=GOOD)
    assert code == 1
    assert "HF_HUB_OFFLINE is set: nothing was asked" in said
    assert "unset HF_HUB_OFFLINE" in said
    assert asked()["network"].state == "ok"
    assert GOOD not in str(server.asked)


def test_the_switch_is_seen_here_too(monkeypatch: pytest.MonkeyPatch, server: Hub) -> None:
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "yes")
    assert asked()["network"].mend == "unset TRANSFORMERS_OFFLINE"
    assert server.asked == []


def test_a_token_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_OIDC_RESOURCE", "owner/name")
    found = asked("owner/open")
    assert found["token"].state == "missing"
    assert found["token"].found == "from HF_OIDC_RESOURCE: OIDCError on reading it"
    assert "unset HF_OIDC_RESOURCE" in (found["token"].mend or "")


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, server: Hub) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert asked()["huggingface_hub"].mend == "pip install huggingface_hub"
    assert server.asked == []


def test_a_fault_of_ours_is_not_called_a_broken_connection() -> None:
    with pytest.raises(ZeroDivisionError):
        hub._answer(lambda: 1 // 0)
