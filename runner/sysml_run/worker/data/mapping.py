"""Templates of the recipe over the fields of a row: sandboxed Jinja, strict about what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

from sysml_run.errors import DataError

Row = Mapping[str, Any]


class NullFieldError(Exception):
    """A template printed null, which no template means."""


class Environment(ImmutableSandboxedEnvironment):
    """Sandboxed; `a.b` finds the key `b` before any method of the object, so that a field may be called `items`."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def environment() -> Environment:
    """No globals a field's absence could hide behind; white space stays as written; nothing is HTML-escaped."""
    env = Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=not_null)
    env.globals = {"range": safe_range, "namespace": Namespace}
    env.filters["tojson"] = tojson
    env.filters["whole"] = whole
    env.filters["without"] = without
    env.filters["mentions"] = mentions
    return env


def not_null(value: Any) -> Any:
    if value is None:
        raise NullFieldError
    return value


def tojson(value: Any, indent: int | None = None) -> str:
    """JSON with keys in the order given; compact unless an indent is asked for, which costs about 18 % more tokens."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(value, ensure_ascii=False, separators=separators, indent=indent, default=undefined_inside)


def undefined_inside(value: Any) -> None:
    if isinstance(value, Undefined):
        str(value)  # StrictUndefined raises the error that names it
    raise TypeError(f"a {type(value).__name__} is not JSON")


def whole(value: Any) -> Any:
    """A whole number as an integer (95.0 and "95" give 95); anything else unchanged."""
    try:
        number = float(value)
        return int(number) if number.is_integer() else value
    except (TypeError, ValueError):
        return value


def without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """An object less the named fields; one that it does not have is no error."""
    return {name: value for name, value in fields.items() if name not in names}


def mentions(value: Any, *words: str) -> bool:
    """Whether a word (or phrase) stands whole in the text, in any case; of an object or list in its JSON."""
    text = value if isinstance(value, str) else str(value) if isinstance(value, Undefined) else tojson(value)
    return whole_words(words).search(text) is not None


@lru_cache(maxsize=64)
def whole_words(words: tuple[str, ...]) -> re.Pattern[str]:
    if not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError("mentions wants words, for example mentions('exploit', 'malware')")
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


class Template:
    """One template or expression of the recipe; `pointer` names it in messages, `wants` says what rows should be."""

    def __init__(self, text: str, pointer: str, *, expression: bool = False, wants: str | None = None) -> None:
        self.pointer, self.wants = pointer, f"; {wants}" if wants else ""
        env = environment()
        try:
            self.call: Callable[..., Any] = (
                env.compile_expression(text, undefined_to_none=False) if expression else env.from_string(text).render
            )
        except TemplateError as error:
            raise DataError(f"{pointer}: {error}", "it is a Jinja template over the fields of a row") from error

    def __call__(self, fields: Row, place: str) -> Any:
        """Text, or the expression's value; DataError names the row and its fields, NullFieldError drops the row."""
        try:
            value = self.call(fields)
            return str(value) if isinstance(value, Undefined) else value
        except UndefinedError as error:
            found = ", ".join(str(name) for name in fields if name != "row")
            raise DataError(
                f"{self.pointer}: {error.message} (row {place})", f"fields found: {found}{self.wants}"
            ) from error
        except SecurityError as error:
            raise DataError(f"{self.pointer}: {error}", "templates may read fields and nothing else") from error
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise DataError(f"{self.pointer}: {type(error).__name__}: {error} (row {place})") from error


def pick(row: Row, path: str, pointer: str, place: str) -> Any:
    """The field at a dotted path; DataError lists the fields where one is missing."""
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            found = ", ".join(map(str, value)) if isinstance(value, Mapping) else "none"
            raise DataError(f"{pointer}: no field {path!r} (row {place})", f"fields found: {found}")
        value = value[part]
    return value
