"""axolotl's datasets -> ours: where the rows are, what a row is, and which tokens are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import preference, splits
from .inline import inline
from .ledger import Ledger
from .paths import Folders
from .values import truth

FILES = ("json", "csv", "parquet", "arrow", "text")
HUB_KEYS = {"name": "config", "revision": "revision"}
GROUPS = {"datasets": None, "pretraining_dataset": "train", "test_datasets": "validation"}
MESSAGES = ("messages", "role", "content")
SHAREGPT = ("conversations", "from", "value")
ASSISTANT = {"assistant", "gpt", "model", "bot"}
CHAT = ("messages", "sharegpt")
Fields = tuple[str, str, str | None]  # prompt, completion and system of a row, as Jinja
ROLES = "roles_to_train"
ROWS: Mapping[str, Fields] = {
    "alpaca_chat.load_qa": ("{{ question }}", "{{ answer }}", None),
    "alpaca_chat.load_camel_ai": ("{{ message_1 }}", "{{ message_2 }}", None),
    "alpaca_w_system.load_open_orca": ("{{ question }}", "{{ response }}", "{{ system_prompt }}"),
    "alpaca_w_system.load_open_orca_chatml": ("{{ question }}", "{{ response }}", "{{ system_prompt }}"),
    "context_qa": ("{{ article }}\n===\n{{ question }}", "{{ answer }}", None),
    "context_qa.load_v2": ("Context: {{ context }}\nQuestion: {{ question }}\n", "Answer: {{ answer }}", None),
    "gpteacher": ("{{ instruction }}{% if input %}\n{{ input }}{% endif %}", "{{ response }}", None),
    "metharme": ("{{ prompt }}", "{{ generation }}", None),
    "oasst": ("{{ INSTRUCTION }}", "{{ RESPONSE }}", None),
    "summarizetldr": ("{{ article }}", "{{ summary }}", None),
}
BY_NAME = {"alpaca": "alpaca", "sharegpt": "sharegpt", "completion": "text", "pretrain": "text"}
ALPACA = "alpaca"
STYLES = {"": "alpaca", "instruct": "alpaca", "chatml": "chatml"}  # of type alpaca
WORDED = {
    "alpaca": "type alpaca has its own wording",
    "chatml": "type alpaca:chatml has its own wording",
    "none": "these rows are written without a chat template",
}
GUESS: Fields = ("{{ instruction }}", "{{ output }}", None)


def carry(ledger: Ledger, folders: Folders) -> None:
    """Every dataset that can be named, in the order written, and what is trained on."""
    for group, side in GROUPS.items():
        for at in range(len(_items(ledger, group))):
            _dataset(ledger, folders, f"{group}.{at}", side)
    _trained_on(ledger)
    duplicates = truth(ledger.get("dataset_exact_deduplication"))
    if duplicates:
        ledger.carry("split.dedupe", "exact", "dataset_exact_deduplication")


def wording(ledger: Ledger) -> tuple[str, str] | None:
    """The template that all of axolotl's types bring along, whatever `chat_template` says; None where one does not."""
    found = {_own(item.get("type")) for group in GROUPS for item in _items(ledger, group)}
    own = found.pop() if len(found) == 1 else ""
    return (own, WORDED[own]) if own else None


def look_at_wording(ledger: Ledger) -> None:
    """Types that bring words of their own lose them where another type, or no template of ours, decides."""
    types = [item.get("type") for group in GROUPS for item in _items(ledger, group)]
    kinds = {"a type written inline" if isinstance(kind, dict) else str(kind) for kind in types if _brings(kind)}
    losing = ", ".join(sorted(kinds))
    if losing and not preference.said(ledger):
        words = f"axolotl words rows of {losing} in a way of their own; here all rows are in one template"
        ledger.look.append(f"prompt.template: {words}")


def _brings(kind: Any) -> bool:
    """Whether axolotl puts words of its own around the rows of a type, or none where others have some."""
    return isinstance(kind, dict) or (
        isinstance(kind, str) and (kind in ROWS or kind.startswith(ALPACA) or _own(kind) != "")
    )


def _own(kind: Any) -> str:
    """The template of ours that a type brings along."""
    if isinstance(kind, dict):
        return "none"
    base, _, style = str(kind).partition(":")
    if base.partition(".")[0] in ("completion", "pretrain"):
        return "none"
    return STYLES.get(style, "") if base == ALPACA else ""


def _dataset(ledger: Ledger, folders: Folders, source: str, side: str | None) -> None:
    """One item of theirs is one of ours, or one for each of its files."""
    path = ledger.get(f"{source}.path")
    if not isinstance(path, str):
        return
    for name in _files(ledger, source, path):
        target = f"datasets.{_count(ledger)}"
        ours = folders.data(str(ledger.get(name)))
        ledger.carry(f"{target}.path", ours, name, *_builder(source, path, name), note=_elsewhere(ours))
        _type(ledger, source, target)
        if side == "validation":
            ledger.make(f"{target}.use_as", side, "axolotl: test_datasets")
        if ours.startswith("hub:"):
            _hub(ledger, source, target)
        else:
            ledger.leave(f"{source}.split", "a file is read whole; a split is of a hub dataset")


def _files(ledger: Ledger, source: str, path: str) -> list[str]:
    """The names of the source's values that say where rows are: `path`, or `data_files` where path is a reader."""
    files = ledger.get(f"{source}.data_files")
    if path not in FILES or files is None:
        return [f"{source}.path"]
    return (
        [f"{source}.data_files.{at}" for at in range(len(files))]
        if isinstance(files, list)
        else [f"{source}.data_files"]
    )


def _builder(source: str, path: str, name: str) -> list[str]:
    return [f"{source}.path"] if path in FILES and not name.endswith(".path") else []


def _elsewhere(path: str) -> str:
    return "download it and name its files" if "://" in path else ""


def _hub(ledger: Ledger, source: str, target: str) -> None:
    splits.carry(ledger, f"{target}.split", f"{source}.split")
    for theirs, ours in HUB_KEYS.items():
        ledger.same(f"{target}.{ours}", f"{source}.{theirs}")


def _type(ledger: Ledger, source: str, target: str) -> None:
    name = f"{source}.type"
    kind = ledger.get(name)
    if preference.said(ledger):
        _pairs(ledger, name, target)
    elif isinstance(kind, dict):
        inline(ledger, name, target)
    elif isinstance(kind, str) and kind.startswith("chat_template"):
        _chat(ledger, source, target)
    elif isinstance(kind, str) and kind in ROWS:
        _rows(ledger, name, target, ROWS[kind])
    elif isinstance(kind, str) and kind.split(".")[0].split(":")[0] in BY_NAME:
        _named(ledger, source, target, kind)
    else:
        _guess(ledger, name, target, kind)


def _pairs(ledger: Ledger, name: str, target: str) -> None:
    """Rows with two answers, whatever the type calls them."""
    if isinstance(ledger.get(name), str):
        ledger.carry(f"{target}.type", preference.TYPE, name, note=preference.WHY)
    ledger.make(f"{target}.type", preference.TYPE, f"axolotl: {preference.said(ledger)}; {preference.WHY}")


def _named(ledger: Ledger, source: str, target: str, kind: str) -> None:
    base, _, variant = kind.replace(":", ".").partition(".")
    ours = BY_NAME[base]
    fields = [name for name in ("field", "text_column") if ledger.get(f"{source}.{name}") is not None]
    other = [name for name in fields if ledger.get(f"{source}.{name}") != "text"]
    note = f"the wording {variant} is left to prompt.template" if variant else ""
    ledger.carry(f"{target}.type", ours, f"{source}.type", note=note)
    ledger.settle(f"{target}.type", *(f"{source}.{name}" for name in fields if name not in other))
    for name in other if ours == "text" else ():
        ledger.leave(f"{source}.{name}", "recipes read text from the field text: rename the field in the rows")
        ledger.look.append(f"{target}.type: rename the field {ledger.get(f'{source}.{name}')} of the rows to text")
    _chat_fields(ledger, source, target, ours)


def _rows(ledger: Ledger, name: str, target: str, fields: Fields, note: str = "") -> None:
    ledger.carry(f"{target}.type", "rows", name, note=note)
    for part, text in zip(("prompt", "completion", "system"), fields, strict=True):
        if text is not None:
            ledger.make(f"{target}.map.{part}", text, "the fields that axolotl's type reads")


def _guess(ledger: Ledger, name: str, target: str, kind: Any) -> None:
    """A type without an equal: templates that can be seen to be a guess."""
    ledger.make(f"{target}.type", "rows", f"axolotl: type {kind} has no equal")
    ledger.make(f"{target}.map.prompt", GUESS[0], "a guess: write what a row of yours asks")
    ledger.make(f"{target}.map.completion", GUESS[1], "a guess: write what a row of yours answers")
    ledger.leave(name, f"no equal type: {target}.map holds a guess to be rewritten")
    ledger.look.append(f"{target}.map: a guess; write the templates for your rows")


def _chat(ledger: Ledger, source: str, target: str) -> None:
    """messages or sharegpt by the names of the fields; others have to be renamed in the rows."""
    mapping = ledger.get(f"{source}.message_property_mappings") or {}
    role = mapping.get("role") or ledger.get(f"{source}.message_field_role") or "role"
    content = mapping.get("content") or ledger.get(f"{source}.message_field_content") or "content"
    found = (ledger.get(f"{source}.field_messages") or "messages", role, content)
    kind = "sharegpt" if found == SHAREGPT else "messages"
    ledger.carry(f"{target}.type", kind, f"{source}.type")
    if found in (MESSAGES, SHAREGPT):
        _chat_fields(ledger, source, target, kind)
    else:
        ledger.look.append(f"{target}.type: rows have {found[0]} with {role} and {content}; recipes read {kind}")


def _chat_fields(ledger: Ledger, source: str, target: str, kind: str) -> None:
    """The names of the fields that are those of our type are carried by it."""
    fields = ("field_messages", "message_field_role", "message_field_content", "message_property_mappings")
    if kind in CHAT:
        ledger.settle(f"{target}.type", *(f"{source}.{name}" for name in fields if ledger.get(f"{source}.{name}")))


def _trained_on(ledger: Ledger) -> None:
    """One setting for all datasets: theirs is a key for inputs, and a list of roles for each conversation."""
    kinds = _kinds(ledger)
    usual = "assistant" if kinds & {*CHAT} else "all" if kinds and kinds <= {"text"} else "completion"
    roles = [f"datasets.{at}.roles_to_train" for at, item in enumerate(_items(ledger, "datasets")) if item.get(ROLES)]
    trained = {str(role) for name in roles for role in ledger.get(name) or ()}
    if truth(ledger.get("train_on_inputs")) or trained - ASSISTANT:
        also = [name for name in roles if trained - ASSISTANT]
        ledger.carry("prompt.train_on", "all", *(name for name in ("train_on_inputs", *also) if ledger.get(name)))
    elif ledger.has("train_on_inputs") or trained:
        said = [name for name in ("train_on_inputs", *roles) if ledger.get(name) is not None]
        ledger.carry("prompt.train_on", usual, *said)
    ledger.make("prompt.train_on", usual, "axolotl's default")


def _kinds(ledger: Ledger) -> set[str]:
    places = [place for place in ledger.entries if place[0] == "datasets" and place[-1] == "type"]
    return {str(ledger.entries[place].value) for place in places}


def _items(ledger: Ledger, group: str) -> list[Mapping[str, Any]]:
    """The datasets of a group; what is none is listed later, as every leaf is."""
    items = ledger.get(group)
    return [item if isinstance(item, dict) else {} for item in items] if isinstance(items, list) else []


def _count(ledger: Ledger) -> int:
    return len({place[1] for place in ledger.entries if place[0] == "datasets"})
