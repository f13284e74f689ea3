"""Schemas of answers, and what goes with folds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ASKED = ("evaluation.generate={}", "evaluation.metrics=[schema_valid]")


def write(folder: Path, text: str) -> str:
    (folder / "answer.json").write_text(text)
    return f"evaluation.json_schema={folder}/answer.json"


def test_a_schema_that_can_be_used(check, tmp_path: Path) -> None:
    schema = {"$defs": {"a": {"type": "string"}}, "properties": {"b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}
    assert check(*ASKED, write(tmp_path, json.dumps(schema)), running=True) == []
    within = {"$defs": {"a": {"$id": "a", "$defs": {"b": {}}, "$ref": "#/$defs/b"}}, "$ref": "#/$defs/a"}
    assert check(*ASKED, write(tmp_path, json.dumps(within)), running=True) == []
    (unused,) = check(write(tmp_path, "{}"))
    assert (unused.severity, unused.hint) == ("warning", "add schema_valid to evaluation.metrics")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "answer.json is not JSON: "),
        ("[]", "answer.json: a schema is an object"),
        ('{"type": 3}', "answer.json: type: 3 is not valid under any of the given schemas"),
        ('{"items": [{"$ref": "other.json"}]}', "refers to other.json, and nothing but the file itself is read"),
        (
            '{"items": {"$dynamicRef": "other.json#a"}}',
            "refers to other.json#a, and nothing but the file itself is read",
        ),
        ('{"items": {"$ref": "#/$defs/none"}}', "answer.json: refers to #/$defs/none, which is not in it"),
        ('{"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#none"}', "refers to #none, which is not"),
        ('{"not": ' * 3000 + "{}" + "}" * 3000, "answer.json is nested too deeply"),
        ('{"minimum": "x"}', "answer.json: minimum: 'x' is not of type 'number'"),
    ],
)
def test_a_schema_that_cannot(text: str, words: str, check, tmp_path: Path) -> None:
    (problem,) = check(*ASKED, write(tmp_path, text))
    assert (problem.pointer, problem.severity) == ("evaluation.json_schema", "error")
    assert words in problem.message


def test_without_its_library_a_schema_is_looked_at_as_far_as_that_goes(
    check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "jsonschema", raising=False)
    monkeypatch.setattr(sys, "path", [])
    assert check(*ASKED, write(tmp_path, '{"type": 3}')) == []
    (problem,) = check(*ASKED, write(tmp_path, '{"type": 3}'), running=True)
    assert problem.hint == "pip install 'sysml-run[metrics]'"


def test_a_schema_that_is_not_here(check, tmp_path: Path) -> None:
    missing = f"evaluation.json_schema={tmp_path}/nowhere.json"
    (warning,) = check(*ASKED, missing)
    (error,) = check(*ASKED, missing, running=True)
    assert (warning.severity, error.severity) == ("warning", "error")
    (none,) = check(*ASKED)
    assert (none.pointer, none.hint) == ("evaluation.metrics.0", "write evaluation.json_schema: FILE")


def test_what_goes_with_folds_and_what_does_not(check, tmp_path: Path) -> None:
    folds = "evaluation.cross_validation={folds: 3}"
    assert check(folds, "split.test=0.1", running=True) == []
    assert check(folds, "evaluation.cross_validation.fold=3") == []
    wrong = {
        "evaluation.cross_validation.fold=4": ("evaluation.cross_validation.fold", "error"),
        "split.validation=0.2": ("split.validation", "warning"),
        "split.validation=0": ("split.validation", "warning"),
        "artifacts.dir=out": ("artifacts.dir", "warning"),
        "quantization.export=[{method: gguf}]": ("quantization.export", "warning"),
        f"model.trained={trained(tmp_path)}": ("evaluation.cross_validation", "error"),
    }
    for assignment, expected in wrong.items():
        (problem,) = check(folds, assignment)
        assert (problem.pointer, problem.severity) == expected


def trained(folder: Path) -> Path:
    """A model that was trained elsewhere, as far as a check looks."""
    made = folder / "trained"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "llama"}')
    (made / "model.safetensors").write_text("")
    return made
