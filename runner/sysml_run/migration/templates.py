"""Python format strings over the fields of a row -> sandboxed Jinja, and the names of chat templates."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping
from string import Formatter

from sysml_run.templates import NAMES

JINJA_WORDS = {"row", "range", "namespace", "true", "false", "none"}
MARK = re.compile(r"\{(?=[{%#]|\Z)")
SAME = {name: name for name in NAMES} | {"tokenizer_default": "tokenizer", "default": "tokenizer"}


def chat_template(name: str) -> tuple[str, str]:
    """Our template for another trainer's, and what to look at where it is not the very same one."""
    if name in SAME:
        return SAME[name], ""
    if name.startswith("mistral"):
        return "mistral", "compare the blanks with `sysml-run data --show 1`"
    return "tokenizer", "the template that comes with the tokenizer"


def field(name: str) -> str:
    """A field of the row as a Jinja expression."""
    plain = name.isidentifier() and not keyword.iskeyword(name) and name.lower() not in JINJA_WORDS
    return name if plain else f"row[{json.dumps(name, ensure_ascii=False)}]"


def printed(name: str) -> str:
    return "{{ " + field(name) + " }}"


def literal(text: str) -> str:
    """Text that Jinja prints as it is."""
    return MARK.sub(lambda _: '{{ "{" }}', text)


def formatted(text: str, fields: Mapping[str, str]) -> str:
    """`{name}` of a format string -> its expression of `fields`. Raises ValueError for any other replacement."""
    made = []
    for before, name, form, conversion in Formatter().parse(text):
        made.append(literal(before))
        if name is not None and (name not in fields or form or conversion):
            raise ValueError(f"{{{name}}} is none of {', '.join(fields)}")
        made += [] if name is None else ["{{ " + fields[name] + " }}"]
    return "".join(made)


def either(name: str, there: str, absent: str) -> str:
    """One text for a row whose field has something in it, another for a row without."""
    if there == absent:
        return there
    of = field(name)
    return "{% if " + f"{of} is defined and {of}" + " %}" + there + "{% else %}" + absent + "{% endif %}"
