"""axolotl's inline dataset type: format strings over named fields -> the templates of type rows."""

from __future__ import annotations

from collections.abc import Mapping

from .ledger import Ledger
from .templates import either, field, formatted, literal, printed

USUAL = {
    "field_system": "system",
    "field_instruction": "instruction",
    "field_input": "input",
    "field_output": "output",
    "format": "{instruction} {input} ",
    "no_input_format": "{instruction} ",
    "system_format": "{system}",
    "system_prompt": "",
}


def inline(ledger: Ledger, source: str, target: str) -> None:
    """Write the templates, or say which format string cannot be read."""
    written = {name: ledger.get(f"{source}.{name}") for name in USUAL}
    said = {name: str(value if value is not None else USUAL[name]) for name, value in written.items()}
    parts = [f"{source}.{name}" for name in USUAL if ledger.has(f"{source}.{name}")]
    try:
        prompt = _system(said) + _turn(said)
    except ValueError as error:
        ledger.leave(source, f"its format cannot be read: {error}")
        prompt = printed(said["field_instruction"])
        ledger.look.append(f"{target}.map.prompt: the format could not be read; write the template")
    ledger.make(f"{target}.type", "rows", "axolotl: a type written inline")
    ledger.carry(f"{target}.map.prompt", prompt, *[name for name in parts if not name.endswith("field_output")])
    ledger.carry(f"{target}.map.completion", printed(said["field_output"]), f"{source}.field_output")


def _turn(said: Mapping[str, str]) -> str:
    """The instruction, with or without an input, as the row has one."""
    fields = {"instruction": field(said["field_instruction"])}
    without = formatted(said["no_input_format"], fields)
    return either(
        said["field_input"], formatted(said["format"], fields | {"input": field(said["field_input"])}), without
    )


def _system(said: Mapping[str, str]) -> str:
    """The row's own system text, else the one that is written for all rows."""
    own = formatted(said["system_format"], {"system": field(said["field_system"])})
    usual = said["system_format"].replace("{system}", said["system_prompt"]) if said["system_prompt"] else ""
    return either(said["field_system"], own, literal(usual))
