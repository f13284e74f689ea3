"""Members of data files: the good are streamed, the hostile refused by name, nothing is written."""

import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from sysml_run.errors import DataError
from sysml_run.worker.data import archive, bounded, documents
from sysml_run.worker.data import member as member_module


def tar_of(path: Path, *infos: tarfile.TarInfo, data: bytes = b"{}", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as made:
        for info in infos:
            if info.isreg():
                info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in facts.items():
        setattr(info, key, value)
    return info


def values(path: Path) -> list[documents.Document]:
    found = archive.members(path, path.name)
    return [document for member in found for document in documents.documents(member.stream, member.label)]


def read(path: Path) -> dict[str | None, bytes]:
    return {found.name: found.stream.read() for found in archive.members(path, path.name)}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar_members_in_order_whatever_the_file_is_called(tmp_path: Path, mode: str) -> None:
    path = tar_of(tmp_path / "x.dat", member("d", tarfile.DIRTYPE), member("d/a.json"), member("b.json"), mode=mode)
    assert list(read(path)) == ["d/a.json", "b.json"]


def test_zip_members(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("d/", "")
        made.writestr("d/a.json", "[1]")
    assert read(path) == {"d/a.json": b"[1]"}


def test_plain_file_is_its_own_member(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"[]")
    assert read(tmp_path / "a.json") == {None: b"[]"}


@pytest.mark.parametrize(
    "name", ["../evil.json", "a/../../evil.json", "/etc/evil.json", "..\\evil.json", "C:\\evil.json"]
)
def test_names_that_leave_the_archive(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="evil"):
        read(tar_of(tmp_path / "a.tar.gz", member("good.json"), member(name)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(name, "{}")
    with pytest.raises(DataError, match="evil"):
        read(tmp_path / "a.zip")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tar.gz", "a.zip"]


KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    path = tar_of(tmp_path / "a.tar", member("sly.json", kind, linkname="/etc/passwd"), mode="w")
    with pytest.raises(DataError, match=r"sly\.json.*link, device"):
        read(path)


def test_zip_symlink_and_encrypted(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("sly.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"sly\.json.*link"):
        read(tmp_path / "a.zip")
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    raw[raw.index(b"PK\x01\x02") + 38 : raw.index(b"PK\x01\x02") + 42] = bytes(4)
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(DataError, match=r"sly\.json.*encrypted"):
        read(tmp_path / "b.zip")


def test_bombs_in_gzip_tar_zip(tmp_path: Path) -> None:
    zeros = bytes(bounded.FREE_BYTES * 2)
    with gzip.open(tmp_path / "a.json.gz", "wb") as file:
        file.write(zeros)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bomb.json", zeros)
    tar_of(tmp_path / "a.tar.gz", member("bomb.json"), data=zeros)
    for name in ("a.json.gz", "a.zip", "a.tar.gz"):
        with pytest.raises(DataError, match=rf"{name}.*decompression bomb"):
            values(tmp_path / name)


def test_document_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MEMBER_BYTES", 1000)
    path = tar_of(tmp_path / "a.tar", member("wide.json"), data=b"[\n" + b"1,\n" * 999 + b"1]", mode="w")
    with pytest.raises(DataError, match=r"wide\.json is larger"):
        values(path)


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "MEMBERS", 3)
    path = tar_of(tmp_path / "a.tar.gz", *(member(f"{i}.json") for i in range(5)))
    with pytest.raises(DataError, match="more than 3 members"):
        read(path)


def test_truncated_archives(tmp_path: Path) -> None:
    whole = tar_of(
        tmp_path / "a.tar.gz", member("one.json"), member("two.json"), data=random.Random(0).randbytes(90_000)
    ).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"cut\.tar\.gz is damaged after two\.json"):
        read_patiently(tmp_path / "cut.tar.gz")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("one.json", "{}")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-10])
    with pytest.raises(DataError, match=r"cut\.zip is damaged"):
        read_patiently(tmp_path / "cut.zip")


def read_patiently(path: Path) -> None:
    for found in archive.members(path, path.name):
        try:
            found.stream.read()
        except documents.UNREADABLE:
            continue


def test_control_characters_are_spelled_out() -> None:
    assert archive.printable("a\x1b[31m.json") == "a\\x1b[31m.json"
    assert archive.printable("naïve.json") == "naïve.json"
