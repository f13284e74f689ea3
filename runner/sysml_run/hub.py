"""What the model hub says of this machine's token and of a recipe's models (`doctor --auth`).

The one front module that opens connections. What it reports is in its own words: no text of a server, of an
exception or of the token is passed on.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from . import caches, needs
from .doctor import Check

SECONDS = 5.0
ENDPOINT = "https://huggingface.co"
PUBLIC = "openai-community/gpt2"  # small, public and old: what everybody may read
TOKENS_PAGE = "https://huggingface.co/settings/tokens"
USER = re.compile(r"[\w.-]{1,60}")
STATUSES = {401: "refused", 403: "forbidden", 429: "limited"}
BROKEN: tuple[tuple[type[BaseException] | str, str], ...] = (
    (socket.gaierror, "its name cannot be resolved"),
    (ConnectionRefusedError, "the connection is refused"),
    (ssl.SSLError, "its certificate is not trusted, or it does not speak TLS"),
    (TimeoutError, f"no answer within {SECONDS:g} seconds"),
    ("TimeoutException", f"no answer within {SECONDS:g} seconds"),
    ("ProxyError", "the proxy refuses"),
    ("TransportError", "the connection breaks"),
    (ValueError, "the answer is not the hub's: a login page, or a wrong HF_ENDPOINT"),
)


@dataclass(frozen=True)
class Answer:
    """`word` is ok, gated, absent, refused, forbidden, limited, `status NNN`, or broken with the reason in `value`."""

    word: str
    value: Any = None


class _ElsewhereError(ValueError):
    """The hub's address leads to another host."""


def ask(models: Sequence[str]) -> list[Check]:
    """One check for the connection, one for the token and one for each model (hub ids)."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return [Check("access", "huggingface_hub", "missing", "not installed", needs.command("huggingface_hub"))]
    switch = caches.offline()
    if switch:
        return [Check("access", "network", "missing", f"{switch} is set: nothing was asked", f"unset {switch}")]
    return list(_asked(_api(), models))


def _api() -> Any:
    """The library's client, quiet, impatient, and kept on its host."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    from huggingface_hub import get_session

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL + 1)  # it would print headers of answers
    session = get_session()
    session.timeout = SECONDS
    session.event_hooks = {**session.event_hooks, "response": [_stay]}
    return huggingface_hub.HfApi((os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/"))


def _stay(response: Any) -> None:
    """Called with each answer before a redirect is followed. Raises _ElsewhereError for one to another host."""
    if response.has_redirect_location:
        here, there = response.url, response.url.join(response.headers["location"])
        if (here.scheme, here.host, here.port) != (there.scheme, there.host, there.port):
            raise _ElsewhereError


def _asked(api: Any, models: Sequence[str]) -> Iterator[Check]:
    host = urlsplit(api.endpoint).hostname or "the hub"
    control = _answer(lambda: api.model_info(PUBLIC, token=False, timeout=SECONDS))
    if control.word == "broken":
        mend = "look at the network, HTTPS_PROXY and HF_ENDPOINT; --offline runs with what is here"
        yield Check("access", "network", "missing", f"{host}: {control.value}", mend)
        return
    readable = control.word in ("ok", "absent")  # a mirror need not have every model
    found = "answers without a token" if readable else f"answers without a token: {_words(control)}"
    yield Check(
        "access", "network", "ok" if readable else "warning", f"{host} {found}", None if readable else "try again later"
    )
    token, check = _token(api, readable)
    yield check
    for name in models:
        yield _model(api, name, token, check.state != "missing")


def _token(api: Any, readable: bool) -> tuple[str | None, Check]:
    """The token and what the hub says of it."""
    from huggingface_hub import get_token

    source = caches.token_source()
    caches.hand_token()
    try:
        token = get_token()
    except Exception as error:
        return None, Check(
            "access", "token", "missing", f"from {source}: {type(error).__name__} on reading it", _renew(source)
        )
    if token is None:
        mend = f"for gated and private ones: hf auth login, with a token of {TOKENS_PAGE}"
        return None, Check("access", "token", "ok", "none; public models need none", mend)
    origin = f"from {source or 'the notebook'}"
    if not token.isascii() or not token.isprintable() or " " in token:  # the library could not even send it
        found = f"{origin}: holds a character that no token has"
        return None, Check("access", "token", "missing", found, _renew(source))
    answer = _answer(lambda: api.whoami(token=token))
    if answer.word == "ok":
        name = str(answer.value.get("name", ""))
        shown = f", user {name}" if USER.fullmatch(name) and name not in token and token not in name else ""
        return token, Check("access", "token", "ok", f"{origin}: accepted{shown}")
    if answer.word in ("refused", "forbidden"):
        also = "; public models are readable without it and not with it" if readable else ""
        return token, Check("access", "token", "missing", f"{origin}: refused by the hub{also}", _renew(source))
    return token, Check("access", "token", "warning", f"{origin}: {_words(answer)}", "try again later")


def _renew(source: str | None) -> str:
    variable = source is not None and source.isupper()
    return f"unset {source}, or set it to a token of {TOKENS_PAGE}" if variable else "hf auth login --force"


def _model(api: Any, name: str, token: str | None, valid: bool) -> Check:
    answer = _answer(lambda: api.auth_check(name, token=token or False))
    if answer.word == "refused" and token and not valid:
        anonymous = _answer(lambda: api.auth_check(name, token=False))
        if anonymous.word == "ok":
            mend = "remove or renew the token"
            return Check("access", name, "missing", "readable without the token, refused with it", mend)
        answer = anonymous
    return _verdict(name, answer, token is not None)


def _verdict(name: str, answer: Answer, token: bool) -> Check:
    page = f"https://huggingface.co/{name}"
    if answer.word == "ok":
        return Check("access", name, "ok", "readable" if token else "readable without a token")
    if answer.word == "gated":
        who = (
            "this token's account has no access, or the token may not read gated models"
            if token
            else "no token is here"
        )
        mend = f"ask for access at {page}" + ("" if token else ", then: hf auth login")
        return Check("access", name, "missing", f"gated, and {who}", mend)
    if answer.word in ("absent", "refused"):
        who = "it is private and not open to this token" if token else "it is private, which takes a token"
        return Check(
            "access", name, "missing", f"there is no such repository, or {who}", f"compare the name with {page}"
        )
    if answer.word == "forbidden":
        mend = f"give it read access to this repository at {TOKENS_PAGE}"
        return Check("access", name, "missing", "this token may not read it", mend)
    return Check("access", name, "warning", _words(answer), "try again later")


def _words(answer: Answer) -> str:
    """Of an answer that says nothing of token or model."""
    if answer.word == "broken":
        return str(answer.value)
    return {"limited": "too many requests", "refused": "access refused"}.get(
        answer.word, f"cannot be used ({answer.word})"
    )


def _answer(call: Callable[[], Any]) -> Answer:
    """What became of one question. Raises what is neither an answer of the hub nor a broken connection."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        return Answer("ok", call())
    except GatedRepoError:
        return Answer("gated")
    except RepositoryNotFoundError:
        return Answer("absent")
    except HfHubHTTPError as error:
        status = error.response.status_code
        return Answer(STATUSES.get(status, f"status {status}"))
    except Exception as error:
        reason = _broken(error)
        if reason is None:
            raise
        return Answer("broken", reason)


def _broken(error: BaseException) -> str | None:
    """Why no answer came: the first row that fits the error or one of its causes."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for kind, words in BROKEN:
        if any(_is(each, kind) for each in chain):
            return words
    return None


def _is(error: BaseException, kind: type[BaseException] | str) -> bool:
    """By class, or by the name of a class of the HTTP library, which changes with versions of the hub's."""
    if isinstance(kind, str):
        return any(base.__name__ == kind for base in type(error).__mro__)
    return isinstance(error, kind)
