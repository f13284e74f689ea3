"""Every changed byte is named; nothing that stands in a folder can lead the check out of it or make it wait."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysml_run import manifest, verification
from sysml_run.errors import UsageError
from sysml_run.rundir import read_json, write_json, write_text

SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "empty").write_bytes(b"")
    (folder / "inner" / "weights").write_bytes(b"\x00" * 5000)
    manifest.write(folder, {"name": "x"})
    return folder


def test_what_differs_is_named(package: Path) -> None:
    assert verification.verify(package) == []
    (package / "empty").unlink()
    (package / "inner" / "weights").write_bytes(b"\x00" * 4999 + b"\x01")
    (package / "inner" / "new").write_text("new")
    (package / "inner" / ".partial-x").write_text("hidden")
    assert verification.verify(package) == [
        "empty: missing",
        "inner/.partial-x: extra",
        "inner/new: extra",
        "inner/weights: changed",
    ]


def test_a_folder_that_is_gone_takes_its_files_along(package: Path) -> None:
    (package / "inner" / "weights").unlink()
    (package / "inner").rmdir()
    (package / "inner").write_text("a file now")
    assert verification.verify(package) == ["inner: extra", "inner/weights: missing"]


def test_another_length_is_seen_without_reading(package: Path) -> None:
    (package / "inner" / "weights").write_bytes(b"\x00" * 4999)
    seen: list[int] = []
    listed = verification.listing(package)
    assert listed.bytes == 5000
    assert verification.differences(package, listed, seen.append) == {"inner/weights": "changed"}
    assert sum(seen) == 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_in_any_file_names_the_file(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "flipped"
    if not folder.exists():
        (folder / "inner").mkdir(parents=True)
        (folder / "a\\b").write_bytes(b"{}")
        (folder / "inner" / "weights").write_bytes(bytes(range(256)))
        manifest.write(folder, {"name": "x"})
    name = data.draw(st.sampled_from(["a\\b", "inner/weights", "manifest.json", "SHA256SUMS"]))
    whole = (folder / name).read_bytes()
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    (folder / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    try:
        found = verification.verify(folder)
        assert len(found) == 1
        assert name in found[0]
    finally:
        (folder / name).write_bytes(whole)


def test_the_two_lists_vouch_for_each_other(package: Path) -> None:
    sums = (package / "SHA256SUMS").read_text()
    write_text(package / "SHA256SUMS", sums.replace(SHA256_OF_NOTHING, "0" * 64))
    assert verification.verify(package) == ["SHA256SUMS: changed"]
    write_text(package / "SHA256SUMS", sums)
    write_json(package / "manifest.json", read_json(package / "manifest.json") | {"name": "y"})
    assert verification.verify(package) == ["manifest.json: changed, or its line in SHA256SUMS is"]
    (package / "SHA256SUMS").unlink()
    assert verification.verify(package) == ["SHA256SUMS: missing"]
    (package / "SHA256SUMS").write_bytes(b"\xff")
    assert verification.verify(package) == ["SHA256SUMS: changed"]


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2}', "[" * 100_000])
def test_without_a_manifest_to_believe_the_sums_say_it(package: Path, text: str) -> None:
    (package / "manifest.json").write_text(text)
    assert verification.verify(package) == ["manifest.json: changed"]
    (package / "empty").write_text("x")
    assert verification.verify(package) == ["empty: changed", "manifest.json: changed"]
    (package / "manifest.json").unlink()
    assert verification.verify(package) == ["empty: changed", "manifest.json: missing"]


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "inner/../../outside", "a\0b"])
def test_a_manifest_cannot_point_outside(package: Path, name: str) -> None:
    (package.parent / "outside").write_text("x")
    (package / "SHA256SUMS").unlink()
    made = read_json(package / "manifest.json")
    write_json(package / "manifest.json", made | {"files": {name: {"sha256": "0", "bytes": 1}}})
    assert f"{name}: listed, but outside the folder" in verification.verify(package)


def test_nonsense_in_a_manifest_is_a_change(package: Path) -> None:
    (package / "SHA256SUMS").unlink()
    made = read_json(package / "manifest.json")
    write_json(package / "manifest.json", made | {"files": {"empty": 3, "inner/weights": {"bytes": "many"}}})
    assert verification.verify(package) == ["SHA256SUMS: missing", "empty: changed", "inner/weights: changed"]
    assert verification.listing(package).bytes == 0


class TestHostile:
    """Links, pipes and devices under listed and unlisted names."""

    def test_a_link_is_not_followed_even_to_the_same_bytes(self, package: Path) -> None:
        (package.parent / "elsewhere").write_bytes(b"")
        (package / "empty").unlink()
        (package / "empty").symlink_to(package.parent / "elsewhere")
        (package / "loop").symlink_to("loop")
        assert verification.verify(package) == ["empty: a link, which is not followed", "loop: extra"]

    def test_nor_is_one_on_the_way(self, package: Path) -> None:
        (package / "inner").rename(package.parent / "moved")
        (package / "inner").symlink_to(package.parent / "moved")
        found = verification.verify(package)
        assert found == ["inner: extra", "inner/weights: behind a link, which is not followed"]

    @pytest.mark.parametrize("name", ["empty", "manifest.json", "SHA256SUMS"])
    def test_a_pipe_does_not_make_it_wait(self, package: Path, name: str) -> None:
        (package / name).unlink()
        os.mkfifo(package / name)
        os.mkfifo(package / "more")
        problem = "not a plain file" if name == "empty" else "changed"
        assert verification.verify(package) == sorted([f"{name}: {problem}", "more: extra"])

    def test_nor_does_a_socket(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(package)  # a socket's name is short
        (package / "empty").unlink()
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("empty")
            assert stat.S_ISSOCK((package / "empty").stat().st_mode)
            assert verification.verify(package) == ["empty: cannot be read: No such device or address"]

    def test_a_link_as_the_manifest(self, package: Path) -> None:
        (package / "manifest.json").unlink()
        (package / "manifest.json").symlink_to("/dev/zero")
        assert verification.verify(package) == ["manifest.json: changed"]

    def test_an_endless_list_is_not_read_to_its_end(self, package: Path) -> None:
        for name in ("manifest.json", "SHA256SUMS"):
            os.truncate(package / name, verification.LARGEST + 1)
        with pytest.raises(UsageError, match=r"manifest\.json cannot be read"):
            verification.verify(package)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "kind": "run"}', '{"format": 1, "kind": "run"}'])
def test_no_manifest_of_ours_is_said_plainly(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"has no manifest\.json"):
        verification.verify(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match=r"is not a manifest of sysml-run|cannot be read"):
        verification.verify(tmp_path)


@pytest.mark.parametrize("vouched", [False, True])
def test_a_package_that_is_called_a_run_hides_nothing(package: Path, vouched: bool) -> None:
    write_json(package / "manifest.json", read_json(package / "manifest.json") | {"kind": "run"})
    (package / "added").write_text("x")
    if vouched:
        (package / "SHA256SUMS").write_text(
            "".join(line for line in (package / "SHA256SUMS").read_text().splitlines(True) if "manifest" not in line)
        )
    expected = "SHA256SUMS: changed" if vouched else "manifest.json: changed, or its line in SHA256SUMS is"
    assert sorted(verification.verify(package)) == sorted(["added: extra", expected])


def test_when_a_folder_may_be_replaced(package: Path, tmp_path: Path) -> None:
    assert verification.refusal(tmp_path / "nothing") is None
    assert verification.refusal(package) is None
    (tmp_path / "void").mkdir()
    assert verification.refusal(tmp_path / "void") is None
    assert verification.refusal(package / "empty") == "it is a file"
    assert "has no manifest.json" in str(verification.refusal(tmp_path))
    (package / "notes").write_text("mine")
    assert verification.refusal(package) == "it holds files that are not part of the package: notes"
    write_json(package / "manifest.json", read_json(package / "manifest.json") | {"kind": "run"})
    assert verification.refusal(package) == "it is a run directory"


def test_a_manifest_of_a_package_may_lack_the_line_of_its_own(package: Path) -> None:
    lines = (package / "SHA256SUMS").read_text().splitlines(keepends=True)
    (package / "SHA256SUMS").write_text("".join(line for line in lines if "manifest.json" not in line))
    assert verification.verify(package) == ["SHA256SUMS: changed"]
    assert json.loads((package / "manifest.json").read_text())["name"] == "x"
