"""Progress that people see: bytes read with rows a second, and rows tokenized of all, each with the time left."""

import io
from pathlib import Path

import pytest

from sysml_run.datafiles import Source
from sysml_run.worker.data.bars import EVERY, ReadingBar, rows_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error as a terminal, from now to the end of the test."""
    made = Terminal()
    monkeypatch.setattr("sys.stderr", made)
    return made


def test_reading_follows_the_bytes_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    (tmp_path / "a").write_bytes(b"x" * 10_000)
    sources = [Source(tmp_path / "a", "a", 10_000, ""), Source(tmp_path / "a", "b", 10_000, "")]
    with ReadingBar(20_000) as bar:
        for source in sources:
            with bar.file(source) as opened, source.path.open("rb") as raw:
                opened(raw)
                raw.read(2_500)
                for _ in range(EVERY):
                    bar.row()
                at = bar.bar.n
        assert at == 12_500
    last = shown.getvalue().split("\r")[-1]
    assert "prepare: read: 100%" in last
    assert f"{2 * EVERY:,} rows, " in last
    assert "rows/s" in last
    assert "<00:0" in last  # the time left


def test_an_error_in_a_file_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    source = Source(tmp_path / "a", "a", 1, "")
    source.path.write_bytes(b"x")

    def read() -> None:
        with ReadingBar(1) as bar, bar.file(source) as opened:
            with source.path.open("rb") as raw:
                opened(raw)
            raise KeyError("the row")

    with pytest.raises(KeyError, match="the row"):
        read()


def test_rows_made_before_count(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    with rows_bar(400, 100) as bar:
        bar.update(200)
    assert " 75%" in shown.getvalue().split("\r")[-1]


def test_nothing_is_drawn_where_no_one_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with ReadingBar(10) as bar:
        for _ in range(EVERY):
            bar.row()
    with rows_bar(10, 0) as rows:
        rows.update(10)
    assert capsys.readouterr().err == ""
