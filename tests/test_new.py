"""A ready recipe made one's own: what changes, what stays, and that the result is valid where it stands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from sysml_run import cli, document, resources, schema, validate
from sysml_run.adapt import MODELINE, adapt
from sysml_run.commands.new import ready
from sysml_run.document import Document

READY = [file.stem for file in ready()]
RECIPE = """\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets:
  - {path: rows.jsonl, type: prompt_completion}   # ours
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 2}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a recipe beside its rows."""
    (tmp_path / "one.yaml").write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkout(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that has the schemas and recipes itself, as a clone has."""
    root = project / "checkout"
    shutil.copytree(resources.schemas(), root / "schemas")
    shutil.copytree(resources.recipes(), root / "recipes")
    monkeypatch.setattr(resources, "PACKAGE", root / "package")
    monkeypatch.setattr(resources, "CHECKOUT", root)
    return root


def made(text: str, file: str = "my.yaml") -> Document:
    """`text`, written as one.yaml, adapted for `file`."""
    Path("one.yaml").write_text(text)
    source = document.load(Path("one.yaml"))
    assert not validate.check(source)
    return document.parse(adapt(source, Path(file)).text, file)


def test_there_are_ready_recipes() -> None:
    assert {"quickstart", "generalist_mixtral_lora"} <= set(READY)


def test_without_anything_the_ready_recipes_are_listed(capsys) -> None:
    assert cli.main(["new"]) == 0
    said = capsys.readouterr().out
    for file in ready():
        assert re.search(rf"\n  {file.stem} +{re.escape(document.load(file).value['description'])}\n", said)


@pytest.mark.parametrize("name", READY)
def test_every_ready_recipe_becomes_ones_own(name: str, capsys) -> None:
    assert cli.main(["new", "--from", name, "sub/my.yaml"]) == 0
    said = capsys.readouterr().out
    copied = document.load(Path("sub/my.yaml"))
    assert not validate.check(copied)
    assert copied.value["name"] == "my"
    assert "\n  name = my\n" in said
    before = (resources.recipes() / f"{name}.yaml").read_text().splitlines()
    changed = [old for old, new in zip(before, copied.text.splitlines(), strict=True) if old != new]
    assert all(line.strip(" -").startswith(("name:", "path:", "# yaml-language-server:")) for line in changed)
    lines = said.partition("next:\n")[2].splitlines()
    assert [shlex.split(line) for line in lines] == [
        ["sysml-run", "validate", "sub/my.yaml"],
        ["sysml-run", "--smoke", "sub/my.yaml"],
    ]
    assert cli.main(lines[0].split()[1:]) == 0


def test_the_schema_goes_with_the_recipe(project: Path, capsys) -> None:
    assert cli.main(["new", "--from", "one.yaml", "far/my.yaml"]) == 0
    assert (
        Path("far/my.yaml").read_text().startswith("# yaml-language-server: $schema=recipe.schema.json\nversion: 1\n")
    )
    assert json.loads((project / "far/recipe.schema.json").read_text()) == schema.bundled()
    assert "far/recipe.schema.json is there for editors" in capsys.readouterr().out
    (project / "far/recipe.schema.json").write_text("mine")
    assert cli.main(["new", "--from", "one.yaml", "far/other.yaml"]) == 0
    assert (project / "far/recipe.schema.json").read_text() == "mine"
    assert "recipe.schema.json" not in capsys.readouterr().out


@pytest.mark.parametrize(("file", "reference"), [("recipes/my.yaml", "../schemas"), ("a/b/my.yaml", "../../schemas")])
def test_in_a_checkout_its_own_schema_is_named(file: str, reference: str, checkout: Path) -> None:
    assert cli.main(["new", "--from", "quickstart", f"checkout/{file}"]) == 0
    found = MODELINE.search((checkout / file).read_text())
    assert found is not None
    assert found[1] == f"{reference}/recipe.schema.json"
    assert ((checkout / file).parent / found[1]).is_file()
    assert not (checkout / file).with_name("recipe.schema.json").exists()


def test_an_installed_package_is_not_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "PACKAGE", checkout)
    assert cli.main(["new", "--from", "quickstart", "checkout/my.yaml"]) == 0
    assert "$schema=recipe.schema.json\n" in (checkout / "my.yaml").read_text()


def test_an_address_of_a_schema_is_kept(project: Path) -> None:
    Path("one.yaml").write_text(f"# yaml-language-server: $schema=https://host.invalid/s.json\n{RECIPE}")
    assert cli.main(["new", "--from", "one.yaml", "my.yaml"]) == 0
    assert "$schema=https://host.invalid/s.json\n" in Path("my.yaml").read_text()
    assert not Path("recipe.schema.json").exists()


def test_paths_at_hand_are_found_from_the_new_place(capsys) -> None:
    assert cli.main(["new", "--from", "one.yaml", "a/b/my.yaml"]) == 0
    assert "  - {path: ../../rows.jsonl, type: prompt_completion}   # ours\n" in Path("a/b/my.yaml").read_text()
    assert "\n  datasets.0.path = ../../rows.jsonl\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", ["absent.jsonl", "hub:owner/name", "/absent/rows.jsonl", "~/rows.jsonl", "absent/*.jsonl"]
)
def test_other_paths_stay_as_written(path: str) -> None:
    assert made(RECIPE.replace("rows.jsonl", f'"{path}"'), "a/my.yaml").value["datasets"][0]["path"] == path


def test_a_path_that_shares_only_the_root_is_absolute(tmp_path: Path) -> None:
    copied = made(RECIPE, "/my.yaml")
    assert copied.value["datasets"][0]["path"] == str(tmp_path / "rows.jsonl")


def test_models_move_and_hub_ids_do_not(project: Path) -> None:
    (project / "models/mine").mkdir(parents=True)
    (project / "models/mine/config.json").write_text("{}")
    assert (
        made(RECIPE.replace("tiny:llama", "models/mine"), "a/my.yaml").value["model"]["base_model"] == "../models/mine"
    )
    assert made(RECIPE.replace("tiny:llama", "owner/mine"), "a/my.yaml").value["model"]["base_model"] == "owner/mine"


def test_paths_are_quoted_where_yaml_wants_it(project: Path) -> None:
    (project / "my, rows #1").mkdir()
    (project / "my, rows #1" / "a.jsonl").write_text("{}\n")
    copied = made(RECIPE.replace("rows.jsonl", '"my, rows #1/*.jsonl"'), "a/my.yaml")
    assert copied.value["datasets"][0]["path"] == "../my, rows #1/*.jsonl"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("    path: &p rows.jsonl\n    where: *p", ["../rows.jsonl", "../rows.jsonl"]),
        ("    where: &p rows.jsonl\n    path: *p", ["rows.jsonl", "rows.jsonl"]),
        ("    path: 'rows.jsonl'  # quoted\n    where: a", ["../rows.jsonl", "a"]),
    ],
)
def test_anchors_and_quotes(written: str, value: list[str]) -> None:
    text = RECIPE.replace("  - {path: rows.jsonl, type: prompt_completion}   # ours", f"  - type: rows\n{written}")
    dataset = made(text, "a/my.yaml").value["datasets"][0]
    assert [dataset["path"], dataset["where"]] == value


def test_block_text_and_windows_lines(project: Path) -> None:
    text = RECIPE.replace("name: one", "name: >-\n  one\n").replace("\n", "\r\n")
    Path("one.yaml").write_bytes(text.encode())
    assert cli.main(["new", "--from", "one.yaml", "a/my.yaml"]) == 0
    copied = document.load(Path("a/my.yaml")).value
    assert (copied["name"], copied["datasets"][0]["path"]) == ("my", "../rows.jsonl")


@pytest.mark.parametrize(
    ("file", "name"),
    [("my.yaml", "my"), ("My Run.yaml", "one"), (f"{'a' * 101}.yaml", "one"), ("123.yaml", "123"), ("a.b.yaml", "a.b")],
)
def test_the_name_is_the_files_where_it_fits(file: str, name: str) -> None:
    copied = made(RECIPE, file)
    assert copied.value["name"] == name
    assert not validate.check(copied)


def test_nothing_is_overwritten(capsys) -> None:
    Path("my.yaml").write_text("mine")
    assert cli.main(["new", "--from", "quickstart", "my.yaml"]) == 2
    assert cli.main(["new", "--from", "quickstart", "."]) == 2
    assert Path("my.yaml").read_text() == "mine"
    assert "my.yaml is there already, and nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my.yaml"], "sysml-run new --from quickstart my.yaml"),
        (["--from", "quickstart"], "sysml-run new --from quickstart my.yaml"),
        (["--from", "quikstart", "my.yaml"], "did you mean quickstart?"),
        (["--from", "zzz", "my.yaml"], "sysml-run new lists them"),
        (["--from", "absent.yaml", "my.yaml"], "absent.yaml: cannot be read"),
        (["--from", "bad.yaml", "my.yaml"], 'expected a number, got "fast"'),
    ],
)
def test_refusals_say_what_to_type(arguments: list[str], said: str, capsys) -> None:
    Path("bad.yaml").write_text(RECIPE.replace("1e-3", "fast"))
    assert cli.main(["new", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not Path("my.yaml").exists()


def test_what_holds_on_one_machine_only_is_noted(tmp_path: Path, capsys) -> None:
    """In the file, as that is what others get."""
    text = RECIPE.replace("rows.jsonl, type", "rows.jsonl, where: a, type")
    Path("one.yaml").write_text(text)
    copied = adapt(document.load(Path("one.yaml")), Path("/my.yaml"))
    assert (
        f"{tmp_path}/rows.jsonl, where: a, type: prompt_completion}}   # ours  # a path of this machine\n"
        in copied.text
    )
    assert f"datasets.0.path = {tmp_path}/rows.jsonl  # a path of this machine" in copied.changes
    assert "  # " not in adapt(document.load(Path("one.yaml")), Path("a/my.yaml")).text.replace("  # ours", "")


def test_an_example_that_did_not_come_along_is_noted(checkout: Path, capsys) -> None:
    """As where sysml-run is installed: its recipes are there, their data are not."""
    assert cli.main(["new", "--from", "quickstart", "my.yaml"]) == 0
    noted = "path: ../examples/data/findings.tar.gz  # nothing is here: name your own\n"
    assert f"  - {noted}" in Path("my.yaml").read_text()
    assert f"  datasets.0.{noted.replace('path:', 'path =')}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tiny:llama", "./nomodel"),
        ("{path: rows.jsonl, type: prompt_completion}   # ours", "type: rows\n    path: absent.jsonl"),
    ],
)
def test_notes_stand_at_the_end_of_the_line(old: str, new: str) -> None:
    text = RECIPE.replace(old, new)
    copied = made(text, "my.yaml")
    (line,) = [line for line in copied.text.splitlines() if "nothing is here" in line]
    assert line.endswith("  # nothing is here: name your own")
    assert copied.value == {**document.parse(text, "").value, "name": "my"}


@pytest.mark.parametrize("quoted", ["absent.jsonl, where: a\n      b", "absent.jsonl, where: 'a\n      b'"])
def test_no_note_goes_into_a_text_of_several_lines(quoted: str) -> None:
    text = RECIPE.replace("rows.jsonl", quoted)
    copied = made(text, "my.yaml")
    assert copied.value == {**document.parse(text, "").value, "name": "my"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux keeps its processes there")
def test_where_no_file_can_be_made(capsys) -> None:
    assert cli.main(["new", "--from", "quickstart", "/proc/x.yaml"]) == 1
    assert capsys.readouterr().err.startswith("error: /proc/x.yaml cannot be written: No such file")
    Path("axolotl.yml").write_text("base_model: owner/name\nmicro_batch_size: 1\nadapter: lora\n")
    assert cli.main(["migrate", "axolotl.yml", "--from", "axolotl", "--out", "/proc/x.yaml"]) == 1
    assert "error: /proc/x.yaml cannot be written: No such file" in capsys.readouterr().err
