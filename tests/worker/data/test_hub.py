"""Datasets of the hub: pinned, laid out and fetched once, then found without a connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sysml_run import caches, datafiles, document
from sysml_run.errors import DataError
from sysml_run.resolve import resolve
from sysml_run.rundir import RunDir, write_json
from sysml_run.worker import prepare
from sysml_run.worker.data import hub

from .local_hub import Hub, serving
from .reading import dataset, read

OLD, NEW = "a" * 40, "b" * 40
SECRET = "hf_ofnobodyandfortestsalone"
ROOT = Path(__file__).parents[3]
CARD = """---
configs:
- config_name: pairs
  data_files:
  - {split: train, path: "pairs/train-*.jsonl"}
  - {split: test, path: "pairs/test.jsonl"}
- config_name: other
  data_files: [{split: train, path: "other.csv"}]
---
"""


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def pair(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Q{number}", "completion": f"A{number}", **more}


FILES = {
    "README.md": CARD.encode(),
    "pairs/train-00000-of-00002.jsonl": lines(pair(0, pid=1046), pair(1, pid="1046")),
    "pairs/train-00001-of-00002.jsonl": lines(pair(2)),
    "pairs/test.jsonl": lines(pair(3)),
    "other.csv": b"prompt,completion\nQ,A\n",
}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of a dataset in the hub's cache, with no connection to be had."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "hub" / "datasets--ann--rows"
    for name, data in FILES.items():
        file = folder / "snapshots" / OLD / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(OLD)
    return folder


def rows(**keys: Any) -> Any:
    return dataset("hub:ann/rows", "prompt_completion", **{"config": "pairs", **keys})


def test_what_is_in_the_cache_is_found_offline(cached: Path) -> None:
    assert hub.fetch(rows()) == OLD
    found = datafiles.find(rows())
    names = ["pairs/train-00000-of-00002.jsonl", "pairs/train-00001-of-00002.jsonl"]
    assert [source.name for source in found] == [f"ann/rows@{OLD[:12]}/{name}" for name in names]
    assert [source.sha256 for source in found] == [datafiles.sha256(source.path) for source in found]
    assert [len(read(source.path, "prompt_completion")) for source in found] == [2, 1]
    assert hub.fetch(rows()) == hub.fetch(rows(revision=OLD)) == OLD


def test_config_and_split_choose_files(cached: Path) -> None:
    hub.fetch(rows(split="test"))
    hub.fetch(rows(config="other"))
    assert [source.name.rpartition("/")[2] for source in datafiles.find(rows(split="test"))] == ["test.jsonl"]
    assert [source.name.rpartition("/")[2] for source in datafiles.find(rows(config="other"))] == ["other.csv"]
    with pytest.raises(DataError, match="hub:ann/rows is not on this machine"):
        datafiles.find(rows())


@pytest.mark.parametrize(
    ("keys", "words", "hint"),
    [
        ({"config": None}, "pairs.*other", "write datasets.config"),
        ({"config": "odd"}, "'odd' not found", "write datasets.config"),
        ({"split": "dev"}, "has no split 'dev'", "its splits: train, test"),
        ({"revision": "v9"}, "at revision v9 was not fetched before", "run it once without --offline"),
        ({"revision": NEW}, f"at revision {NEW} was not fetched before", "run it once without --offline"),
    ],
)
def test_what_is_not_there(cached: Path, keys: dict[str, Any], words: str, hint: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        hub.fetch(rows(**keys))
    assert hint in str(caught.value.hint)


def test_a_cache_that_is_not_whole(cached: Path) -> None:
    (cached / "snapshots" / OLD / "pairs" / "train-00001-of-00002.jsonl").unlink()
    with pytest.raises(DataError, match=r"1 file\(s\) missing, such as \['pairs/train-00001-of-00002\.jsonl'\]"):
        hub.fetch(rows())


def test_no_data_files(cached: Path) -> None:
    for file in (cached / "snapshots" / OLD).rglob("*.*"):
        file.unlink()
    with pytest.raises(DataError, match="holds no data files"):
        hub.fetch(rows(config=None))


def test_a_recipe_names_the_commit_it_ran_on(cached: Path, make_recipe: Any, rundir: RunDir, capsys: Any) -> None:
    rows = "".join(f"Q{number},A{number}\n" for number in range(20))
    (cached / "snapshots" / OLD / "other.csv").write_text(f"prompt,completion\n{rows}")
    source = {"path": "hub:ann/rows", "type": "prompt_completion", "config": "other"}
    made = prepare.run(make_recipe(datasets=[source]), rundir)
    assert [each["name"] for each in made["files"]] == [f"ann/rows@{OLD[:12]}/other.csv"]
    assert sum(made["rows"].values()) == 20
    assert f"prepare: hub:ann/rows at commit {OLD}" in capsys.readouterr().out


@pytest.fixture
def online() -> Iterator[Hub]:
    with serving({OLD: {"README.md": b"", "train.jsonl": lines(pair(0))}, NEW: FILES}) as server:
        yield server


def fetch(endpoint: str, cache: Path, name: str = "ann/rows", **keys: Any) -> dict[str, Any]:
    """What a process of its own fetches, as libraries read their settings when they are imported."""
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[3])\n"
        "from sysml_run import datafiles; from sysml_run.errors import DataError\n"
        "from sysml_run.worker.data import hub; from reading import dataset\n"
        "source = dataset('hub:' + sys.argv[1], 'prompt_completion', **json.loads(sys.argv[2]))\n"
        "try:\n"
        "    print(json.dumps({'commit': hub.fetch(source), 'files': [one.facts() for one in datafiles.find(source)],\n"
        "        'heavy': [each for each in ('datasets', 'huggingface_hub') if each in sys.modules]}))\n"
        "except DataError as error:\n"
        "    print(json.dumps({'error': error.message, 'hint': error.hint}))\n"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "XDG_CACHE_HOME": str(cache), "PYTHONPATH": "runner"}
    env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    argv = [sys.executable, "-c", code, name, json.dumps(keys), str(Path(__file__).parent)]
    ran = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_main_is_pinned_and_fetched_once(online: Hub, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{online.server_port}"
    made = fetch(endpoint, tmp_path, config="pairs")
    assert made["commit"] == NEW
    assert [each["size"] for each in made["files"]] == [len(FILES[name]) for name in FILES if "train-0" in name]
    assert not any(path.endswith(("other.csv", "test.jsonl")) and "resolve" in path for path in online.asked)
    online.asked.clear()
    again = fetch(endpoint, tmp_path, config="pairs")
    assert again["files"] == made["files"]
    assert online.asked == ["/api/datasets/ann/rows"]
    assert again["heavy"] == ["huggingface_hub"]


@pytest.mark.parametrize("name", ["HF_TOKEN", *caches.OTHER_TOKENS])
def test_a_token_under_another_name_is_shown_to_the_hub_alone(online: Hub, tmp_path: Path, name: str) -> None:
    """The stage as the runner starts it."""
    values = {
        "version": 1,
        "name": "one",
        "model": {"base_model": "tiny:llama"},
        "datasets": [{"path": "hub:ann/rows", "type": "prompt_completion", "config": "pairs"}],
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "training": {"max_steps": 1},
    }
    made, rundir = resolve(document.parse(json.dumps(values), str(tmp_path / "one.yaml"))), RunDir(tmp_path / "run")
    write_json(rundir.recipe, {"values": made.values, "sources": made.sources})
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{online.server_port}", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": "runner"}
    env |= {"HF_HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache"), name: SECRET}
    argv = [sys.executable, "-m", "sysml_run.worker", "prepare", str(rundir.path)]
    ran = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert online.tokens - {None} == {f"Bearer {SECRET}"}  # some of what `datasets` asks goes without
    assert SECRET not in ran.stdout + ran.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_commit_needs_no_connection_again(online: Hub, tmp_path: Path) -> None:
    made = fetch(f"http://127.0.0.1:{online.server_port}", tmp_path, revision=OLD)
    assert [each["name"] for each in made["files"]] == [f"ann/rows@{OLD[:12]}/train.jsonl"]
    again = fetch("http://127.0.0.1:9", tmp_path, revision=OLD)
    assert (again["files"], again["heavy"]) == (made["files"], [])


REFUSED = {
    "ann/gated": ("the dataset ann/gated is gated", "ask for access at https://huggingface.co/datasets/ann/gated"),
    "ann/none": ("there is no dataset ann/none on the hub", "hf auth login"),
    "odd name": ("there is no dataset odd name on the hub", "compare the name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(online: Hub, tmp_path: Path, name: str) -> None:
    found = fetch(f"http://127.0.0.1:{online.server_port}", tmp_path, name)
    message, hint = REFUSED[name]
    assert message in found["error"]
    assert hint in found["hint"]


def test_an_unknown_revision_and_a_hub_that_does_not_answer(online: Hub, tmp_path: Path) -> None:
    found = fetch(f"http://127.0.0.1:{online.server_port}", tmp_path, revision="v9")
    assert found["error"] == "the dataset ann/rows has no revision 'v9'"
    found = fetch("http://127.0.0.1:9", tmp_path)
    assert found["error"].startswith("the dataset ann/rows cannot be fetched")
    assert "--offline" in found["hint"]
