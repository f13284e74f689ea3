"""Parquet and Arrow: the same rows from all three layouts, packed or not; damage is an error and never a crash."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
import math
import random
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sysml_run.errors import DataError
from sysml_run.worker.data import columnar, documents
from sysml_run.worker.data.documents import UNREADABLE

from .reading import read

TALK = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "name": "x"}]


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=max(1, len(table) // 2))
    return out.getvalue()


def ipc(make: Callable[..., Any]) -> Callable[[pa.Table], bytes]:
    def write(table: pa.Table) -> bytes:
        out = io.BytesIO()
        with make(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(1, len(table) // 2))
        return out.getvalue()

    return write


WRITERS = {"parquet": parquet, "arrow": ipc(pa.ipc.new_file), "stream": ipc(pa.ipc.new_stream)}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[[pa.Table], bytes]:
    return WRITERS[request.param]


def values(data: bytes, name: str = "a") -> list[Any]:
    return [found.value for found in documents.documents(io.BufferedReader(io.BytesIO(data)), name)]  # type: ignore[arg-type]


def table(rows: int = 4) -> pa.Table:
    half, when = rows // 2, datetime.datetime(2026, 1, 2, 3, 4)
    return pa.table(
        {
            "text": ["é"] * rows,
            "whole": pa.array([2**53 + 1, None] * half),
            "float": [math.nan, 0.5] * half,
            "flag": [True, None] * half,
            "bytes": [b"text", b"\xff\x00"] * half,
            "when": [when, None] * half,
            "exact": [decimal.Decimal("1.10"), None] * half,
            "talk": [TALK, None] * half,
            "scores": [[math.nan, 1.0], []] * half,
            "map": pa.array([[("k", 0.5)], None] * half, pa.map_(pa.string(), pa.float64())),
            "words": pa.array(["x", "y"] * half).dictionary_encode(),
            "mixed": pa.array(['{"pid": 1046}', '{"pid": "1046"}'] * half, pa.json_()),
            "none": pa.nulls(rows),
        }
    )


FIRST = {
    "text": "é",
    "whole": 2**53 + 1,
    "float": None,
    "flag": True,
    "bytes": "text",
    "when": "2026-01-02T03:04:00",
    "exact": "1.10",
    "talk": [{**TALK[0], "name": None}, TALK[1]],
    "scores": [None, 1.0],
    "map": {"k": 0.5},
    "words": "x",
    "mixed": {"pid": 1046},
    "none": None,
}
SECOND = {
    "text": "é",
    "whole": None,
    "float": 0.5,
    "flag": None,
    "bytes": "/wA=",
    "when": None,
    "exact": None,
    "talk": None,
    "scores": [],
    "map": None,
    "words": "y",
    "mixed": {"pid": "1046"},
    "none": None,
}


def test_values(write: Callable[[pa.Table], bytes]) -> None:
    found = values(write(table()))
    assert found == [FIRST, SECOND] * 2
    assert json.loads(json.dumps(found)) == found
    assert values(gzip.compress(write(table())), "a.gz") == found


def test_rows_are_numbered(write: Callable[[pa.Table], bytes]) -> None:
    data = write(pa.table({"a": range(columnar.BATCH + 1)}))
    found = list(documents.documents(io.BufferedReader(io.BytesIO(data)), "a"))  # type: ignore[arg-type]
    assert [(each.line, each.value["a"]) for each in found[-2:]] == [(256, 255), (257, 256)]


def test_conversations_from_a_file_and_from_an_archive(write: Callable[[pa.Table], bytes], tmp_path: Path) -> None:
    data = write(pa.table({"messages": [TALK] * 3, "extra": [1, 2, 3]}))
    (tmp_path / "a.bin").write_bytes(data)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as made:
        made.add(tmp_path / "a.bin", "in/a.bin")
    alone, packed = read(tmp_path / "a.bin", "messages"), read(tmp_path / "a.tar.gz", "messages")
    assert [messages for _, messages in alone] == [messages for _, messages in packed] == [TALK] * 3
    assert packed[2][0] == "a.tar.gz:in/a.bin:2"


def test_an_infinite_number(write: Callable[[pa.Table], bytes]) -> None:
    with pytest.raises(ValueError, match="infinite number is not JSON"):
        values(write(pa.table({"a": [1.0, math.inf]})))


def test_two_columns_of_one_name() -> None:
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(ValueError, match="two columns have the same name"):
        values(WRITERS["stream"](twice))


def test_pieces_too_large(write: Callable[[pa.Table], bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(write(table(1000)))
    monkeypatch.setattr(columnar, "BATCH_BYTES", 1000)
    with path.open("rb") as file, pytest.raises(DataError, match=r"a: (row group 0|a record batch) is larger than"):
        list(documents.documents(file, "a"))


def test_packed_files_too_large_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "UNSEEKABLE_BYTES", 100)
    for name in ("parquet", "arrow"):
        with pytest.raises(DataError, match="a, which is packed is larger than"):
            values(WRITERS[name](table()))


def test_damage(write: Callable[[pa.Table], bytes]) -> None:
    whole = write(table())
    for cut in (10, len(whole) // 2):
        with pytest.raises(ValueError, match="not a whole Parquet or Arrow file"):
            values(whole[:cut])
    for seed in range(150):
        rng, changed = random.Random(seed), bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        with suppress(*UNREADABLE, DataError):
            values(bytes(changed))
