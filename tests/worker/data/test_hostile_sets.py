"""Input made to harm, through the whole prepare stage: named, and nothing is written but the run and the cache."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sysml_run.errors import DataError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import prepare

from .test_hostile import header, tar, zip_of_a_million

Make = Callable[..., Recipe]
GOOD = b"".join(json.dumps({"prompt": f"What is {n}?", "completion": f"It is {n}."}).encode() + b"\n" for n in range(9))
ROWS = json.dumps([json.loads(line) for line in GOOD.splitlines()]).encode()


def link(name: str, kind: bytes, target: str) -> bytes:
    return gzip.compress(tar(("good.jsonl", {}, GOOD), (name, {"type": kind, "linkname": target}, b"")))


def bomb(name: str) -> bytes:
    """Zeros as one text, a thousand times smaller when packed."""
    out = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("rows.json", b'["' + bytes(2**26) + b'"]')
        return out.getvalue()
    data = b'["' + bytes(2**26) + b'"]'
    return gzip.compress(tar(("rows.json", {}, data)) if ".tar" in name else data)


def outside(name: str) -> bytes:
    return gzip.compress(tar(("good.jsonl", {}, GOOD), (name, {}, GOOD)))


def zipped(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("good.jsonl", GOOD)
        made.writestr(name, GOOD)
    return out.getvalue()


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "up.tar.gz": (lambda: outside("../../escaped.jsonl"), r"'\.\./\.\./escaped\.jsonl' is a name that leaves"),
    "up.zip": (lambda: zipped("a/../../../escaped.jsonl"), r"'a/\.\./\.\./\.\./escaped\.jsonl' is a name that leaves"),
    "root.tar.gz": (lambda: outside("/tmp/escaped.jsonl"), r"'/tmp/escaped\.jsonl' is an absolute name"),
    "root.zip": (lambda: zipped("/tmp/escaped.jsonl"), r"'/tmp/escaped\.jsonl' is an absolute name"),
    "link.tar.gz": (lambda: link("escaped", tarfile.SYMTYPE, "../canary"), "'escaped' is a link, device"),
    "hard.tar.gz": (lambda: link("escaped", tarfile.LNKTYPE, "../canary"), "'escaped' is a link, device"),
    "device.tar.gz": (lambda: link("escaped", tarfile.CHRTYPE, ""), "'escaped' is a link, device"),
    "disk.tar.gz": (lambda: link("escaped", tarfile.BLKTYPE, ""), "'escaped' is a link, device"),
    "pipe.tar.gz": (lambda: link("escaped", tarfile.FIFOTYPE, ""), "'escaped' is a link, device"),
    "bomb.tar.gz": (lambda: bomb("a.tar.gz"), r"bomb\.tar\.gz.* more than 250 times its size"),
    "bomb.zip": (lambda: bomb("a.zip"), r"bomb\.zip.* more than 250 times its size"),
    "bomb.json.gz": (lambda: bomb("a.json.gz"), r"bomb\.json\.gz.* more than 250 times its size"),
    "million.zip": (lambda: zip_of_a_million(10**6), r"million\.zip holds more than 100,000 members"),
    "many.tar": (lambda: header(b"a.json", b"00000000000") * 100_100, r"many\.tar holds more than 100,000 members"),
    "line.jsonl": (lambda: b'{"prompt": "' + b"x" * 200_000_000, r"line\.jsonl: a line is larger than 64 MiB"),
    "cut.tar.gz": (lambda: outside("b.jsonl")[:-20], r"cut\.tar\.gz is damaged after"),
}
MEMBERS: dict[str, tuple[bytes, str]] = {
    "cut.json": (ROWS[:-20], "JSONDecodeError"),
    "cut.json.gz": (gzip.compress(ROWS)[:-9], "end-of-stream marker"),
    "latin.json": (b'[{"prompt": "\xe9", "completion": "b"}]', "UnicodeDecodeError"),
    "nan.json": (b'[{"prompt": NaN, "completion": "b"}]', "NaN is not JSON"),
    "deep.json": (b"[" * 10_000 + b"]" * 10_000, "nested deeper than 200 levels"),
}


def snapshot(folder: Path) -> dict[str, str]:
    """Every file, link and folder, and what the files hold; devices and pipes are not opened."""
    found = {}
    for path in sorted(folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink()
        found[path.relative_to(folder).as_posix()] = sha256(path.read_bytes()).hexdigest() if plain else "-"
    return found


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the input is put, beside a file it may aim at; whatever a test does, nothing around it changes."""
    folder = tmp_path / "around" / "in"
    folder.mkdir(parents=True)
    (folder.parent / "canary").write_text("alive")
    scratch = tmp_path / "around" / "scratch"
    scratch.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(scratch))
    monkeypatch.chdir(scratch)
    escaped = Path("/tmp/escaped.jsonl")  # one of the names that the archives hold
    assert not escaped.exists()
    yield folder
    assert not escaped.exists()
    assert not list(tmp_path.rglob("*escaped*"))


def prepared(make: Make, path: Path, tmp_path: Path) -> None:
    """Prepare the rows at `path`; beside the run and the cache all stays as it was."""
    around = tmp_path / "around"
    before = snapshot(around)
    try:
        prepare.run(make(datasets=[{"path": str(path), "type": "prompt_completion"}]), RunDir(tmp_path / "run"))
    finally:
        assert snapshot(around) == before
        assert {child.name for child in tmp_path.iterdir()} <= {"around", "run", "cache"}


@pytest.mark.parametrize("name", ARCHIVES)
def test_refused_by_name(make_recipe: Make, inbox: Path, tmp_path: Path, cache: Path, name: str) -> None:
    data, words = ARCHIVES[name]
    (inbox / name).write_bytes(data())
    with pytest.raises(DataError, match=words) as caught:
        prepared(make_recipe, inbox / name, tmp_path)
    (inbox / name).unlink()
    assert caught.value.message.isprintable()
    assert caught.value.hint
    assert [path for path in (cache / "prepared").iterdir() if path.suffix != ".lock"] == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("packed", [False, True])
def test_alone_it_is_refused(make_recipe: Make, inbox: Path, tmp_path: Path, name: str, packed: bool) -> None:
    data, words = MEMBERS[name]
    path = inbox / ("set.tar.gz" if packed else name)
    path.write_bytes(gzip.compress(tar((name, {}, data))) if packed else data)
    with pytest.raises(DataError, match=r"1 of 1 files or members of .* cannot be read") as caught:
        prepared(make_recipe, path, tmp_path)
    assert name in str(caught.value.hint)
    assert words in str(caught.value.hint)
    assert not (tmp_path / "run").exists()


def test_among_others_it_is_passed_over_and_named(make_recipe: Make, inbox: Path, tmp_path: Path, capsys: Any) -> None:
    good = [(f"good_{n}.jsonl", {}, GOOD) for n in range(6)]
    path = inbox / "set.tar.gz"
    path.write_bytes(gzip.compress(tar(*good, *((name, {}, data) for name, (data, _) in MEMBERS.items()))))
    prepared(make_recipe, path, tmp_path)
    report = read_json(tmp_path / "run/data/report.json")
    assert report["rows"] == {"read": 54, "kept": 54, "dropped": {}}
    told = {note["member"]: note["unreadable"] for note in report["files"] if "unreadable" in note}
    assert told.keys() == MEMBERS.keys()
    printed = capsys.readouterr().out
    for name, (_, words) in MEMBERS.items():
        assert words in told[name]
        assert f"passed over set.tar.gz:{name}: " in printed


def test_lines_are_lost_one_by_one(make_recipe: Make, inbox: Path, tmp_path: Path) -> None:
    """What is wrong with a line is the line's alone."""
    bad = [data.replace(b"\n", b"") for name, (data, _) in MEMBERS.items() if not name.endswith(".gz")]
    (inbox / "a.jsonl").write_bytes(GOOD + b"\n".join(bad) + b"\n" + GOOD)
    prepared(make_recipe, inbox / "a.jsonl", tmp_path)
    report = read_json(tmp_path / "run/data/report.json")
    assert report["rows"] == {"read": 22, "kept": 18, "dropped": {"not_a_row": 4}}
    assert [line for line, _ in report["files"][0]["bad_lines"]] == [10, 11, 12, 13]
    told = [why for _, why in report["files"][0]["bad_lines"]]
    wanted = ("Unterminated string", "'utf-8' codec", "NaN is not JSON", "nested deeper than 200 levels")
    assert all(words in why for words, why in zip(wanted, told, strict=True))


def test_no_folder_is_followed_out_of_the_dataset(make_recipe: Make, inbox: Path, tmp_path: Path) -> None:
    """A named pipe or a device in a folder of data is no file, and is not waited for."""
    (inbox / "rows").mkdir()
    (inbox / "rows" / "a.jsonl").write_bytes(GOOD)
    os.mkfifo(inbox / "rows" / "b.jsonl")
    prepared(make_recipe, inbox / "rows", tmp_path)
    assert [note["path"] for note in read_json(tmp_path / "run/data/report.json")["files"]] == ["a.jsonl"]
