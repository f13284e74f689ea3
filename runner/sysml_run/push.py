"""A package -> a repository of the hub. The token is read where the hub's library keeps it, and goes nowhere else."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from pathlib import Path
from typing import Any

from . import caches, needs
from .errors import StageError, UsageError

REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
TOKENS_PAGE = "https://huggingface.co/settings/tokens"
STATUSES = {401: "the token is refused", 403: "the token may not write there", 404: "there is no such owner"}


def ready(repository: str) -> None:
    """Whether a push can be tried at all, before anything is packed. Raises UsageError; opens no connection."""
    if REPOSITORY.fullmatch(repository) is None:
        raise UsageError(f"--push {repository} is no repository of the hub", "write it OWNER/NAME")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UsageError("--push takes huggingface_hub, not installed here", needs.command("huggingface_hub"))
    switch = caches.offline()
    if switch:
        raise UsageError(f"{switch} is set: nothing is pushed", f"unset {switch}")
    if _token() is None:
        raise UsageError("no token of the hub is set", f"export HF_TOKEN, one that may write: {TOKENS_PAGE}")
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"--push {repository} is no repository of the hub: {error}", "write it OWNER/NAME") from None


def push(folder: Path, repository: str, *, public: bool) -> str:
    """Upload every file of `folder` in one commit, making the repository where there is none; gives its address.

    Files that are there under other names stay. Raises StageError, in our own words.
    """
    token = _token()
    from huggingface_hub import HfApi

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL + 1)  # it would print headers of answers
    api = HfApi(os.environ.get("HF_ENDPOINT"), token=token)
    try:
        address = api.create_repo(repository, private=not public, exist_ok=True)
        hidden = bool(api.repo_info(repository).private)  # one that is there already stays as it is
        if hidden == public:
            raise _otherwise(repository, hidden=hidden)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Package of sysml-run")
    except StageError:
        raise
    except Exception as error:  # the library raises many kinds, and what they say may hold what the server said
        raise StageError(f"{repository} was not pushed: {_reason(error)}", f"the package is in {folder}") from None
    return str(address)


def _otherwise(repository: str, *, hidden: bool) -> StageError:
    is_, wanted = ("private", "with") if hidden else ("public", "without")
    hint = f"change that at {repository}'s settings on the hub, or name another repository"
    return StageError(f"{repository} was not pushed: it is there and {is_}, {wanted} --public", hint)


def _token() -> str | None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # which the library reads when it is imported
    from huggingface_hub import get_token

    caches.hand_token()
    return get_token()


def _reason(error: Exception) -> str:
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        return f"the hub cannot be reached ({type(error).__name__})"
    return STATUSES.get(status, f"the hub answers {status}")
