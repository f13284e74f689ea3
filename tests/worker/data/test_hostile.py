"""Input made to harm: each is refused by name, in bounded time and memory, and nothing is written anywhere."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sysml_run.errors import DataError
from sysml_run.worker.data import archive, documents, member, sysscan
from sysml_run.worker.data.bounded import FREE_BYTES

BOMB = gzip.compress(bytes(FREE_BYTES * 2))


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path: Path) -> Iterator[None]:
    """Around each test: beside what the test itself puts into `in/`, no file appears."""
    (tmp_path / "in").mkdir()
    yield
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, data: bytes) -> Path:
        (tmp_path / "in" / name).write_bytes(data)
        return tmp_path / "in" / name

    return write


def read(path: Path) -> list[Any]:
    """Every value of every member; a member that cannot be read gives the words of its error."""
    found: list[Any] = []
    for each in archive.members(path, path.name):
        try:
            found += [document.error or document.value for document in documents.documents(each.stream, each.label)]
        except documents.UNREADABLE as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def outcome(path: Path) -> list[Any] | DataError:
    """What is read, or the refusal: either will do, a crash or an endless loop will not."""
    try:
        return read(path)
    except DataError as error:
        return error


def tar(*members: tuple[str, dict[str, Any], bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, facts, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in facts.items():
                setattr(info, key, value)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A tar header with any bytes as its size field, its checksum right."""
    block = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"0" * 11 + b"\0"
    block += b" " * 8 + kind + bytes(100) + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


NAMES = ["../up.json", "a/../../up.json", "/etc/up.json", "\\\\host\\up.json", "C:\\up.json", "a\x1b[2Jup.json"]
NAMES += ["up\n.json"]


@pytest.mark.parametrize("name", NAMES)
def test_names(put: Callable[[str, bytes], Path], name: str) -> None:
    with pytest.raises(DataError, match=r"a\.tar: member '.*up.*' is a"):
        read(put("a.tar", tar((name, {}, b"{}"))))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr(name, "{}")
    with pytest.raises(DataError, match=r"a\.zip: member '.*up.*' is a") as caught:
        read(put("a.zip", out.getvalue()))
    assert caught.value.message.isprintable()


KINDS = {"a link": tarfile.SYMTYPE, "a hard link": tarfile.LNKTYPE, "a device": tarfile.CHRTYPE}
KINDS |= {"a disk": tarfile.BLKTYPE, "a fifo": tarfile.FIFOTYPE}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file(put: Callable[[str, bytes], Path], kind: str) -> None:
    facts = {"type": KINDS[kind], "linkname": "/etc/passwd"}
    with pytest.raises(DataError, match=r"'sly\.json' is a link, device or sparse file"):
        read(put("a.tar.gz", gzip.compress(tar(("good.json", {}, b"[1]"), ("sly.json", facts, b"")))))


def test_sparse_files(put: Callable[[str, bytes], Path]) -> None:
    for kind, pax in ((tarfile.GNUTYPE_SPARSE, {}), (b"0", {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})):
        path = put("a.tar", tar(("sly.json", {"type": kind, "pax_headers": pax}, b"9999999\n")))
        with pytest.raises(DataError, match=r"sly\.json is a sparse file"):
            read(path)


@pytest.mark.parametrize("name", ["a.json.gz", "a.tar.gz", "a.zip", "hex.json", "parts.zip"])
def test_bombs(put: Callable[[str, bytes], Path], name: str) -> None:
    zeros, out = bytes(FREE_BYTES * 2), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(4 if name == "parts.zip" else 1):
            made.writestr(f"bomb{number}.json", b'{"a": "' + zeros[: FREE_BYTES // 2 if name == "parts.zip" else None])
    data = {
        "a.json.gz": BOMB,
        "a.tar.gz": gzip.compress(tar(("bomb.json", {}, zeros))),
        "hex.json": json.dumps({"compressed": True, "data": BOMB.hex()}).encode(),
    }
    path = put(name, data.get(name, out.getvalue()))
    with pytest.raises(DataError, match=rf"{name}.* unpacks to more than 250 times.*bomb"):
        [row for value in read(path) for row in sysscan.findings(value, name)]


def test_packed_many_times_over() -> None:
    value: Any = {"findings": []}
    for _ in range(5):
        value = {"compressed": True, "data": gzip.compress(json.dumps(value).encode()).hex()}
    with pytest.raises(ValueError, match="packed more than 3 times over"):
        list(sysscan.findings(value, "a"))


def zip_of_a_million(entries: int) -> bytes:
    """A directory of a million members; `entries` is how many its end says there are."""
    record = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory, start = record * 10**6, b"PK\x03\x04" + bytes(26)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, len(directory), len(start))
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(start) + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *[2**16 - 1] * 2, *[2**32 - 1] * 2, 0)
    return start + directory + wide + locator + end


def test_a_million_members(put: Callable[[str, bytes], Path]) -> None:
    started = time.process_time()
    for name, data in {
        "a.zip": zip_of_a_million(10**6),
        "liar.zip": zip_of_a_million(10),
        "a.tar": header(b"a.json", b"00000000000") * 200_000,
        "a.tar.gz": gzip.compress(header(b"a.json", b"00000000000") * 200_000, 1),
    }.items():
        with pytest.raises(DataError, match=rf"{name}.*(more than 100,000 members|bomb)"):
            list(archive.members(put(name, data), name))
    assert time.process_time() - started < 30


def test_zip_that_lies(put: Callable[[str, bytes], Path]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("rows.json", json.dumps(list(range(1000))))
    whole = out.getvalue()
    at = whole.index(b"PK\x01\x02")

    def said(place: int, value: int) -> Path:
        return put("a.zip", whole[: at + place] + struct.pack("<L", value) + whole[at + place + 4 :])

    packed, unpacked = 20, 24
    assert read(said(unpacked, 4890)) == [list(range(1000))]
    for size in (100, 5000, 2**31):
        assert "BadZipFile" in read(said(unpacked, size))[0]
    with pytest.raises(DataError, match=r"rows\.json' is larger than the archive it is in"):
        read(said(packed, 2**31))
    with pytest.raises(DataError, match=r"rows\.json' is encrypted"):
        read(put("a.zip", whole[: at + 8] + b"\x01" + whole[at + 9 :]))
    with pytest.raises(DataError, match=r"a\.zip is damaged"):
        read(put("a.zip", whole[: at + 10] + b"\x63" + whole[at + 11 :]))


BINARY = b"\x80" + bytes(3)
SIZES = {
    "negative": b"\xff" * 12,
    "the end of the number": BINARY + b"\x7f" + b"\xff" * 7,
    "a petabyte": BINARY + struct.pack(">Q", 2**50),
    "no number": b"zzzzzzzzzzz",
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L"])
def test_tar_sizes(put: Callable[[str, bytes], Path], size: str, kind: bytes) -> None:
    path = put("a.tar", tar(("good.json", {}, b"[1]"))[:1024] + header(b"sly.json", SIZES[size], kind) + bytes(2048))
    found = outcome(path)
    if isinstance(found, DataError):
        assert "a.tar" in found.message
    else:  # the size is met when the member is read
        assert found[0] == [1]
        assert not any(isinstance(each, list) for each in found[1:])


def test_pax_bombs(put: Callable[[str, bytes], Path]) -> None:
    long = tar(("a.json", {"pax_headers": {"comment": "x" * 10**6}}, b"{}"))
    with pytest.raises(DataError, match=r"a\.tar is damaged.*header of 1,000,\d+ bytes"):
        read(put("a.tar", long))
    record = b"13 path=a.js\n"
    chain = (header(b"x", b"%011o" % len(record), b"x") + record.ljust(512, b"\0")) * 3000
    with pytest.raises(DataError, match=r"a\.tar is damaged after its start"):
        read(put("a.tar", chain + header(b"a.json", b"00000000000")))
    for size in ("-512", "99999999999999999999", "1e9"):
        path = put("a.tar", tar(("a.json", {"pax_headers": {"size": size}}, b"{}")))
        found = outcome(path)
        assert "a.tar" in found.message if isinstance(found, DataError) else not any(isinstance(v, dict) for v in found)


DOCUMENTS = {
    "cut": b'{"a": [1, 2',
    "nan": b'{"a": NaN}',
    "infinity": b"[Infinity]",
    "not utf-8": b'{"a": "\xff"}',
    "deep": b"[" * 10_000 + b"]" * 10_000,
    "deep beside text": b'{"a": "]]]]}}}}", "b": ' + b'{"a":[' * 5_000 + b"]}" * 5_000 + b"}",
    "cut gzip": gzip.compress(json.dumps(list(range(9999))).encode())[:-50],
    "numbers": b"9" * 5000,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(put: Callable[[str, bytes], Path], name: str) -> None:
    found = read(put("a.tar", tar(("bad.json", {}, DOCUMENTS[name]), ("good.json", {}, b'[["["]]'))))
    assert "Error" in found[0]
    assert found[1:] == [[["["]]]


def test_depth_is_measured_and_not_guessed() -> None:
    wide = b"[" + b'"[[[{{{",' * 5000 + b'{"a": [[]]}]'
    assert len(documents.parse(wide)) == 5001
    for depth in (documents.DEPTH, documents.DEPTH + 1):
        text = b"[" * depth + b'"' + b"]" * 300 + b'"' + b"]" * depth
        if depth == documents.DEPTH:
            assert json.dumps(documents.parse(text)).encode() == text
        else:
            with pytest.raises(ValueError, match="deeper than 200 levels"):
                documents.parse(text)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_of_200_mb(put: Callable[[str, bytes], Path], name: str) -> None:
    path = put(name, b'{"a": "' + b"x" * 200_000_000)
    code = (
        "import resource, sys; from pathlib import Path; from sysml_run.errors import DataError\n"
        "from sysml_run.worker.data import archive, documents\n"
        "path = Path(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    [list(documents.documents(m.stream, m.label)) for m in archive.members(path, path.name)]\n"
        "except DataError as error:\n"
        "    print(error.message, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, sep='|')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    message, kilobytes = ran.stdout.split("|")
    assert message == f"{name}: a line is larger than 64 MiB in one piece: refused"
    assert int(kilobytes) < 200_000
    path.unlink()


def test_members_of_an_archive_keep_their_names_safe_to_print() -> None:
    assert member.printable("a\x1b[31m.json") == "a\\x1b[31m.json"
    assert member.printable("naïve.json") == "naïve.json"


def test_random_damage(put: Callable[[str, bytes], Path]) -> None:
    """Whatever is changed in an archive, reading it ends, in values or in words for the user."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.json", json.dumps(list(range(50))))
        made.writestr("b.jsonl", '{"a": 1}\n{"a": 2}\n')
    plain = tar(("a.json", {"pax_headers": {"comment": "x"}}, b"[1]"), ("b" * 120, {}, b"{}"))
    for data in (out.getvalue(), plain, gzip.compress(plain, mtime=0)):
        for seed in range(150):
            rng, changed = random.Random(seed), bytearray(data)
            for _ in range(rng.randint(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            found = outcome(put("a", bytes(changed)))
            assert isinstance(found, list) or found.message.isprintable()
