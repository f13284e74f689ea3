"""Bytes to JSON values: one document or a value a line, strict, bounded."""

import gzip
import io
import json
from typing import Any

import pytest

from sysml_run.errors import DataError
from sysml_run.worker.data import documents
from sysml_run.worker.data.documents import UNREADABLE, Document


def read(data: bytes, name: str = "a.json") -> list[Document]:
    return list(documents.documents(io.BufferedReader(io.BytesIO(data)), name))  # type: ignore[arg-type]


def values(data: bytes, name: str = "a.json") -> list[Any]:
    return [document.value for document in read(data, name)]


def test_one_document_pretty_or_not() -> None:
    assert values(b'{"a": 1}') == values(b'{\n "a": 1\n}\n\n') == values(b'\xef\xbb\xbf{"a": 1}\n \n') == [{"a": 1}]


def test_lines_are_found_by_content_and_by_name() -> None:
    assert values(b'{"a": 1}\n\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    assert [d.line for d in read(b'{"a": 1}\n\n{"a": 2}\n')] == [1, 2]
    assert values(b'{"a": 1}', "a.jsonl") == [{"a": 1}]


def test_gzip_is_found_by_content() -> None:
    assert values(gzip.compress(b'{"a": 1}\n{"a": 2}'), "a.jsonl.gz") == [{"a": 1}, {"a": 2}]
    assert values(gzip.compress(b"[1]"), "b.json") == [[1]]


def test_csv() -> None:
    first, second = read(b'a,b\n1,"x\ny"\n2\n', "a.csv")
    assert first == Document({"a": "1", "b": "x\ny"}, 1)
    assert second.error is not None


def test_csv_with_two_columns_of_one_name() -> None:
    with pytest.raises(ValueError, match="two columns have the same name"):
        read(b"a,a\n1,2\n", "a.csv")
    assert values(b"\xef\xbb\xbfa,b\r\n\r\n1,2\r\n", "a.csv") == [{"a": "1", "b": "2"}]
    assert values(b"", "a.csv") == []


def test_a_bad_line_is_an_error_of_its_own() -> None:
    good, bad, other = read(b'{"a": 1}\n{"a": \n{"a": 3}\n', "a.jsonl")
    assert (good.error, other.value, bad.line) == (None, {"a": 3}, 2)
    assert "line 1 column" in str(bad.error)


HOSTILE = {
    "cut": b'{"a": [1, 2',
    "nan": b'{"a": NaN}',
    "infinite": b'{"a": -Infinity}',
    "not utf-8": b'{"a": "\xff"}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "cut gzip": gzip.compress(json.dumps(list(range(9999))).encode())[:-50],
    "wrong gzip": b"\x1f\x8b" + b"nonsense" * 9,
    "empty": b"",
    "many digits": b'{"a": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents(name: str) -> None:
    with pytest.raises(UNREADABLE):
        read(HOSTILE[name])


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LINE_BYTES", 100)
    with pytest.raises(DataError, match=r"a\.jsonl: a line"):
        read(b'{"a": "' + b"x" * 1000 + b'"}\n', "a.jsonl")


def test_hex_of_gzip() -> None:
    text = gzip.compress(b'{"a": "\xc3\xa9"}').hex()
    assert documents.unpack_hex(text, "a") == {"a": "é"}
    for bad in ("zz", text[:-8], "00ff"):
        with pytest.raises(ValueError, match=r".+"):
            documents.unpack_hex(bad, "a")
