"""Merge keys of YAML 1.1: what is merged, what wins, and which line is named."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sysml_run import cli
from sysml_run.errors import RecipeError
from sysml_run.migration import merging


def loaded(text: str, folder: Path) -> Any:
    path = folder / "it.yml"
    path.write_text(text, encoding="utf-8")
    return merging.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}",
        "a: &a {x: 1}\nc: &c {x: 2, z: 3}\nb: {<<: [*a, *c], w: 4}",
        "a: &a {x: 1}\nb: &b\n  <<: *a\n  y: 2\nc:\n  - <<: *b\n    z: 3",
        "é: &a {x: [1, {y: 2}]}\nb:\n  w: 0\n  <<: *a\n<<: {u: 1}",
        "a: 1\nb: {<<: {x: 1}}",
    ],
)
def test_as_yaml_merges(text: str, tmp_path: Path) -> None:
    assert loaded(text, tmp_path).value == yaml.safe_load(text)


def test_what_is_no_section_cannot_be_merged(tmp_path: Path) -> None:
    assert loaded("a: <<\nb: {<<: {x: 1}}", tmp_path).value == {"a": "<<", "b": {"x": 1}}
    assert loaded("a: 1\n<<: 2", tmp_path).value == {"a": 1, "<<": 2}
    assert loaded("a: 1\n<<: [{b: 1}, 2]", tmp_path).value == {"a": 1, "<<": [{"b": 1}, 2]}


def test_places_are_those_of_the_file(tmp_path: Path) -> None:
    made = loaded("usual: &u\n  x: 1\n  y: {z: 2}\nb:\n  <<: *u\n  w: 3\n", tmp_path)
    lines = {place: made.key(place).line for place in (("b", "x"), ("b", "y", "z"), ("b", "w"))}
    assert lines == {("b", "x"): 2, ("b", "y", "z"): 3, ("b", "w"): 6}
    assert not [place for place in (*made.keys, *made.values) if "<<" in place]


def test_whatever_is_merged_is_read_or_refused(tmp_path: Path) -> None:
    @settings(deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("{}[]:, \n<&*a"), max_size=30))
    def holds(text: str) -> None:
        with contextlib.suppress(RecipeError):
            assert loaded(f"<<: {text}", tmp_path).value

    holds()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        merging.load(tmp_path)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "it.yml"
    path.write_text(
        "base_model: a/b\nlearning_rate: 1e-4\nusual: &u {type: alpaca}\ndatasets:\n  - <<: *u\n    path: a.jsonl\n"
    )
    assert cli.main(["migrate", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "type: alpaca " in out
    assert '3  usual.type = "alpaca": unknown to axolotl too' in err
