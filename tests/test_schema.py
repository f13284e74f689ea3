"""The schema tree: references written out, branches followed, places found."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from sysml_run import resources, schema
from sysml_run.errors import InstallError


def test_bundled_is_one_valid_schema_without_references() -> None:
    bundled = schema.bundled()
    Draft202012Validator.check_schema(bundled)
    assert "$ref" not in str(bundled)
    assert bundled["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_key_beside_a_reference_wins() -> None:
    lora = schema.load()["properties"]["lora"]
    assert lora["description"].startswith("Low-rank adapters; absent")
    assert schema.branches(lora)[0]["description"].startswith("Low-rank adapters. Leave")


@pytest.mark.parametrize(
    ("pointer", "titles"),
    [
        (("optimizer",), ["AdamW", "AdamW8bit", "Lion", "Lion8bit", "Adafactor", "Sgd"]),
        (("datasets", 0), ["Dataset"]),
        (("datasets", 3, "map"), ["DatasetMap"]),
        (("hardware",), ["HardwareCpu", "HardwareGpu", "HardwareTpu"]),
        (("evaluation", "generate"), ["Generate", None]),
    ],
)
def test_find(pointer: tuple[str | int, ...], titles: list[str | None]) -> None:
    found = [one.get("title") for node in schema.find(pointer) for one in schema.branches(node)]
    assert found == titles


def test_find_in_every_branch() -> None:
    assert [node["default"] for node in schema.find(("optimizer", "betas"))] == [[0.9, 0.999]] * 2 + [[0.9, 0.99]] * 2
    assert len(schema.find(("optimizer", "betas", 0))) == 4
    assert schema.find(("search", "space", "optimizer.learning_rate", 0)) != ()
    assert schema.find(("optimizer", "momentum")) == ()
    assert schema.find(("name", "x")) == ()


def test_walk_meets_every_key_of_every_branch() -> None:
    found = {".".join(path) for path, _ in schema.walk(schema.load())}
    assert {"version", "datasets.[].map.prompt", "hardware.topology", "hardware.tf32", "lora.r"} <= found
    assert {"evaluation.metrics.[].field", "quantization.export.[].calibration.samples"} <= found


@pytest.mark.parametrize(
    ("value", "kinds"),
    [(True, "boolean"), (1, "integer"), (1.0, "number"), (1.5, "number"), ("", "string"), (None, "null")],
)
def test_kinds(value: object, kinds: str) -> None:
    assert schema.kinds(value)[0] == kinds
    assert ("integer" in schema.kinds(value)) == (value == 1 and value is not True)


def test_the_shipped_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (resources.schemas() / schema.ROOT).is_file()
    assert resources.recipes().is_dir()
    assert resources.samples().parent == resources.PACKAGE
    (tmp_path / "schemas").mkdir()
    monkeypatch.setattr(resources, "PACKAGE", tmp_path)
    assert resources.schemas() == tmp_path / "schemas"
    monkeypatch.setattr(resources, "CHECKOUT", tmp_path)
    with pytest.raises(InstallError, match="'recipes' is in neither"):
        resources.recipes()
