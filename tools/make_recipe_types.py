"""Write runner/sysml_run/recipe.py from the schemas: `python tools/make_recipe_types.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "runner" / "sysml_run" / "recipe.py"
sys.path.insert(0, str(ROOT / "runner"))

from sysml_run.schema import Node, branches, load  # noqa: E402

HEAD = '''\
"""The resolved recipe as frozen dataclasses: made by tools/make_recipe_types.py from the schemas, never edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
'''
SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


class Types:
    """Collects a class for each titled object and an alias for each titled choice, those they use first."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}

    def expression(self, node: Node) -> str:
        """The Python type of what `node` accepts once defaults are filled in."""
        if "oneOf" in node:
            return self.choice(node)
        if "const" in node:
            return f"Literal[{node['const']!r}]"
        if "enum" in node:
            named = [repr(value) for value in node["enum"] if value is not None]
            return " | ".join([f"Literal[{', '.join(named)}]", *(["None"] if None in node["enum"] else [])])
        if "type" not in node:
            return "Any"
        kinds = [node["type"]] if isinstance(node["type"], str) else node["type"]
        return " | ".join(self.of_type(kind, node) for kind in kinds)

    def of_type(self, kind: str, node: Node) -> str:
        if kind == "array":
            return f"tuple[{self.expression(node['items'])}, ...]"
        if kind == "object" and "properties" in node:
            return self.record(node)
        if kind == "object":
            return f"Mapping[str, {self.expression(node['additionalProperties'])}]"
        return SCALARS[kind]

    def choice(self, node: Node) -> str:
        union = " | ".join(self.expression(branch) for branch in branches(node))
        if "title" not in node or " | None" in union:
            return union
        self.made.setdefault(node["title"], f"{node['title']} = {union}")
        return str(node["title"])

    def record(self, node: Node) -> str:
        fields = [f"    {name}: {self.expression(below)}" for name, below in node["properties"].items()]
        title = str(node["title"])
        text = "\n".join(["@dataclass(frozen=True, slots=True)", f"class {title}:", *fields])
        if self.made.setdefault(title, text) != text:
            raise ValueError(f"two different objects are called {title}")
        return title


def render() -> str:
    """The text of recipe.py, formatted by ruff."""
    types = Types()
    types.expression(load())
    text = HEAD + "\n\n" + "\n\n\n".join(types.made.values()) + "\n"
    command = [sys.executable, "-m", "ruff", "format", "--config", str(ROOT / "pyproject.toml"), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
