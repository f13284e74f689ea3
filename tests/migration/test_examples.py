"""Every example: what it becomes, what is said of it, and that it passes `sysml-run validate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sysml_run import document, rules, validate
from sysml_run.commands import validate as command
from sysml_run.migration import convert, detect
from sysml_run.resolve import resolve

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples" / "migrate").glob("*/*.y*ml"))
NAMES = [f"{path.parent.name}/{path.name}" for path in EXAMPLES]
GOLDEN = Path(__file__).parent / "golden"


def test_there_are_examples_of_every_tool() -> None:
    count = {tool: sum(name.startswith(f"{tool}/") for name in NAMES) for tool in convert.TOOLS}
    assert count["axolotl"] >= 6
    assert min(count.values()) >= 2


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_the_tool_is_seen_by_its_keys(path: Path) -> None:
    assert detect.tool(document.load(path).value, "it") == path.parent.name


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_recipe_and_report(path: Path, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "examples" / "migrate")
    made = convert.convert(path.relative_to(ROOT / "examples" / "migrate"), None, None)
    assert not made.problems
    folder = GOLDEN / path.parent.name
    golden(folder / f"{path.stem}.recipe.yaml", made.recipe)
    golden(folder / f"{path.stem}.report.txt", made.report)


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_the_recipe_is_valid(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.yaml"
    out.write_text(convert.convert(path, None, out).recipe, encoding="utf-8")
    made = document.load(out)
    assert not validate.check(made)
    found = rules.check(resolve(made).recipe, made, running=False)
    assert not [problem for problem in found if problem.severity == "error"]
    assert not [problem for problem in command.problems(str(out)) if problem.severity == "error"]
