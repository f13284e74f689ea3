"""torchtune's builders of datasets -> ours: where the rows are and what a row is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import preference, splits
from .ledger import Ledger
from .paths import Folders
from .templates import either, field, formatted, printed
from .values import truth

FILES = ("json", "csv", "parquet", "text")
Builder = tuple[str, str | None, tuple[str, str] | None]  # type, the dataset it reads, fields of prompt and answer
BUILDERS: Mapping[str, Builder] = {
    "alpaca_dataset": ("alpaca", "tatsu-lab/alpaca", None),
    "alpaca_cleaned_dataset": ("alpaca", "yahma/alpaca-cleaned", None),
    "chat_dataset": ("sharegpt", None, None),
    "instruct_dataset": ("rows", None, ("input", "output")),
    "slimorca_dataset": ("sharegpt", "Open-Orca/SlimOrca-Dedup", None),
    "samsum_dataset": ("rows", "Samsung/samsum", ("dialogue", "summary")),
    "grammar_dataset": ("rows", "liweili/c4_200m", ("input", "output")),
    "text_completion_dataset": ("text", None, None),
    "cnn_dailymail_articles_dataset": ("text", "ccdv/cnn_dailymail", None),
    "wikitext_dataset": ("text", "EleutherAI/wikitext_document_level", None),
    **{name: (preference.TYPE, source, None) for name, source in preference.PAIRS.items()},
}
# What torchtune writes around an instruction, inside the user's turn of whatever template the model has.
INSTRUCTION = "Below is an instruction that describes a task"
WORDS = (
    INSTRUCTION + ", paired with an input that provides further context. {request}### Instruction:\n{instruction}\n\n"
    "### Input:\n{input}\n\n### Response:\n",
    INSTRUCTION + ". {request}### Instruction:\n{instruction}\n\n### Response:\n",
)
REQUEST = "Write a response that appropriately completes the request.\n\n"
MASKS = {"train_on_all": "all", "train_on_assistant": "assistant", "train_on_last": "completion"}
TEXT_FIELDS = {"cnn_dailymail_articles_dataset": "article", "wikitext_dataset": "page"}
TRAINS_ON_INPUT = ("alpaca_dataset", "alpaca_cleaned_dataset")


def carry(ledger: Ledger, folders: Folders) -> None:
    """The one dataset of the section, what is trained on, and packing."""
    component = ledger.get("dataset._component_")
    builder = str(component or "").rpartition(".")[2]
    if builder in BUILDERS:
        _dataset(ledger, folders, builder, *BUILDERS[builder])
    ledger.same("prompt.packing", "dataset.packed")
    if truth(ledger.get("dataset.train_on_input")) is not None:
        every = truth(ledger.get("dataset.train_on_input"))
        ledger.carry("prompt.train_on", "all" if every else "assistant", "dataset.train_on_input")
    elif ledger.word("dataset.masking_strategy") in MASKS:
        ledger.carry("prompt.train_on", MASKS[ledger.word("dataset.masking_strategy")], "dataset.masking_strategy")
    elif builder in TRAINS_ON_INPUT or BUILDERS.get(builder, ("",))[0] == "text":
        ledger.make("prompt.train_on", "all", "torchtune's default for this dataset")
    elif builder in BUILDERS:
        ledger.make("prompt.train_on", "assistant", "torchtune's default")


def _dataset(
    ledger: Ledger, folders: Folders, builder: str, kind: str, source: str | None, fields: tuple[str, str] | None
) -> None:
    written, file = ledger.get("dataset.source"), ledger.get("dataset.data_files")
    if written in FILES and isinstance(file, str):
        ledger.carry("datasets.0.path", folders.data(file), "dataset.data_files", "dataset.source")
    elif isinstance(written, str):
        ledger.carry("datasets.0.path", folders.data(written), "dataset.source")
    elif source is not None:
        ledger.make("datasets.0.path", f"hub:{source}", f"torchtune: what {builder} reads")
    _kind(ledger, builder, kind, fields)
    splits.carry(ledger, "datasets.0.split", "dataset.split")
    for name in ("subset", "name"):
        ledger.same("datasets.0.config", f"dataset.{name}")


def _kind(ledger: Ledger, builder: str, kind: str, fields: tuple[str, str] | None) -> None:
    if builder == "chat_dataset" and ledger.get("dataset.conversation_style") in ("openai", "sharegpt"):
        kind = "messages" if ledger.get("dataset.conversation_style") == "openai" else "sharegpt"
        names = ["dataset.conversation_style"]
        usual = {"messages": "messages", "sharegpt": "conversations"}[kind]
        names += ["dataset.conversation_column"] if ledger.get("dataset.conversation_column") == usual else []
        ledger.carry("datasets.0.type", kind, "dataset._component_", *names)
    elif kind == "alpaca":
        _alpaca(ledger)
    elif fields is not None:
        _rows(ledger, fields)
    else:
        note = preference.WHY if kind == preference.TYPE else ""
        ledger.carry("datasets.0.type", kind, "dataset._component_", note=note)
    field = ledger.get("dataset.column") or TEXT_FIELDS.get(builder)
    if kind == "text" and field not in (None, "text"):
        ledger.leave("dataset.column", "recipes read text from the field text: rename the field in the rows")
        ledger.look.append(f"datasets.0.type: rename the field {field} of the rows to text")
    elif field == "text":
        ledger.settle("datasets.0.type", "dataset.column")
    if ledger.get("dataset.new_system_prompt") is not None:
        ledger.same("datasets.0.map.system", "dataset.new_system_prompt")


def _alpaca(ledger: Ledger) -> None:
    """Alpaca's wording is a part of the question; `column_map` says which fields it is made of."""
    columns: Any = ledger.get("dataset.column_map")
    usual = {name: name for name in ("instruction", "input", "output")}
    named = usual | ({name: str(one) for name, one in columns.items()} if isinstance(columns, dict) else {})
    fields = {name: field(named[name]) for name in ("instruction", "input")}
    with_input, without = (formatted(text.replace("{request}", REQUEST), fields) for text in WORDS)
    known = {name: f"dataset.column_map.{name}" for name in usual if ledger.has(f"dataset.column_map.{name}")}
    ledger.carry("datasets.0.type", "rows" if known else "alpaca", "dataset._component_")
    asked = [name for part, name in known.items() if part != "output"]
    prompt = either(named["input"], with_input, without)
    ledger.carry("datasets.0.map.prompt", prompt, *asked, note="its wording of the row")
    if known:
        ledger.carry(
            "datasets.0.map.completion", printed(named["output"]), *[one for one in known.values() if one not in asked]
        )


def _rows(ledger: Ledger, fields: tuple[str, str]) -> None:
    """`column_map` says which fields are meant."""
    columns: Any = ledger.get("dataset.column_map")
    named = columns if isinstance(columns, dict) else {}
    ledger.carry("datasets.0.type", "rows", "dataset._component_")
    for part, theirs, usual in (("prompt", "input", fields[0]), ("completion", "output", fields[1])):
        names = [f"dataset.column_map.{theirs}"] if theirs in named else []
        ledger.carry(f"datasets.0.map.{part}", printed(str(named.get(theirs, usual))), *names)
