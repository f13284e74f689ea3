"""`sysml-run migrate`, as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysml_run import cli

CONFIG = (
    'base_model: owner/model\nlearning_rate: 1e-4\ndatasets: [{path: rows.jsonl, type: alpaca}]\nstrange: "\\e[1m"\n'
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "My Config.yml"
    path.write_text(CONFIG)
    return path


def test_to_the_screen(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["migrate", str(config)]) == 0
    out, err = capsys.readouterr()
    assert "name: my-config " in out
    assert "path: rows.jsonl " in out
    assert "# Not carried from My Config.yml (line, key, value, why):\n# 4 strange = " in out
    assert "4  strange = " in err
    assert "\x1b" not in out + err


def test_to_a_file_elsewhere_paths_stay_right(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    out = tmp_path / "recipes" / "mine.yaml"
    assert cli.main(["migrate", str(config), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{out} is written\n{config} is a configuration of axolotl: ")
    assert "path: ../rows.jsonl " in out.read_text()
    assert "name: mine " in out.read_text()
    assert cli.main(["validate", str(out)]) == 0
    assert "there is nothing at" not in capsys.readouterr().out


def test_a_file_is_not_written_over(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.yaml").write_text("mine")
    assert cli.main(["migrate", str(config), "--out", "there.yaml"]) == 2
    assert "there.yaml is there already" in capsys.readouterr().err
    assert (tmp_path / "there.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("[1, 2]", "expected keys and values at the top level"),
        ("base_model: a\n<<: {a: 1}\n<<: {b: 1}", "written twice; the first is on line 2"),
        ("base_model: [a\n<<: {a: 1}", "not YAML"),
        ("base_model: a\nbase_model: b", "written twice; the first is on line 1"),
        ("learning_rate: 1e-4", "say which: --from axolotl or --from llama-factory or --from trl"),
    ],
)
def test_what_cannot_be_read(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "it.yml"
    if text is not None:
        path.write_text(text)
    assert cli.main(["migrate", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_the_tool_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "it.json"
    path.write_text('{"learning_rate": 1e-4, "model_name_or_path": "a/b"}')
    assert cli.main(["migrate", str(path), "--from", "trl"]) == 0
    assert "learning_rate: 0.0001                     # trl: learning_rate" in capsys.readouterr().out
