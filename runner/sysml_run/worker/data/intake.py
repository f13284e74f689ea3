"""The first pass: every file read once, every row mapped to a conversation on disk, what is left out counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from tqdm import tqdm

from sysml_run.errors import DataError
from sysml_run.recipe import Dataset, Recipe

from .archive import Member, members, printable
from .conversations import Conversations, Left
from .documents import UNREADABLE, documents
from .mapping import pick
from .masking import digest, mask, priority
from .rowtypes import RowType, row_type
from .sample import Sample
from .sources import Source
from .spool import Spool

NAMED = 5


@dataclass(slots=True)
class Record:
    """What is held in memory of a row: where it is spooled, and what splitting and counting need."""

    offset: int
    exact: bytes
    masked: bytes
    group: bytes
    values: tuple[str | None, ...]  # of Intake.fields


@dataclass
class Intake:
    """Rows and counts of a whole recipe; `read` = rows in `records` + `dropped`."""

    recipe: Recipe
    spool: Spool
    records: list[Record] = field(default_factory=list)
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields whose values are counted: the one to stratify by, severity and category."""
        return tuple(dict.fromkeys([self.recipe.split.stratify_by or "severity", "severity", "category"]))

    def read_all(self, sources: list[list[Source]]) -> None:
        """Read every dataset; DataError when one has no rows, or most of its members cannot be read."""
        with tqdm(desc="prepare: rows read", unit=" rows", disable=None) as bar:
            for number, (dataset, files) in enumerate(zip(self.recipe.datasets, sources, strict=True)):
                DatasetReader(self, dataset, number, bar).read(files)

    def drop(self, reason: str) -> None:
        self.dropped[reason] += 1


class DatasetReader:
    """Reads one dataset of the recipe into the intake."""

    def __init__(self, intake: Intake, dataset: Dataset, number: int, bar: Any) -> None:
        self.intake, self.dataset, self.number, self.bar = intake, dataset, number, bar
        self.type: RowType = row_type(dataset)
        self.conversations = Conversations(dataset, number)
        self.sample = Sample(dataset.max_rows)
        self.kept: list[Record | None] = []

    def read(self, files: list[Source]) -> None:
        before, noted = self.intake.read, len(self.intake.files)
        for source in files:
            for member in members(source.path, source.name):
                for place, row in self.rows(member):
                    self.take(row, place)
        self.intake.records += [record for record in self.kept if record is not None]
        self.check(self.intake.files[noted:], self.intake.read - before)

    def rows(self, member: Member) -> Iterator[tuple[str, Any]]:
        """Rows with their place; a member that cannot be read on is noted with its reason and left."""
        note: dict[str, Any] = {"path": member.file, "member": member.name and printable(member.name), "rows": 0}
        self.intake.files.append(note)
        found = self.found(member, note)
        while True:
            try:
                row = next(found)
            except StopIteration:
                break
            except UNREADABLE as error:
                note["unreadable"] = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                break
            yield f"{member.label}:{note['rows']}", row
            note["rows"] += 1
        if not note["rows"] and "unreadable" not in note:
            note["skipped"] = "holds no rows"

    def found(self, member: Member, note: dict[str, Any]) -> Iterator[Any]:
        """Rows of every document in the member; a line that holds none comes as None and is noted."""
        for document in documents(member.stream, member.label):
            some = False
            for row in self.type.rows(document.value, member.label) if document.error is None else ():
                some = True
                yield row
            if not some and document.line is not None:
                note.setdefault("bad_lines", []).append([document.line, document.error or "not a row"])
                del note["bad_lines"][NAMED:]
                yield None

    def take(self, row: Any, place: str) -> None:
        """Map, spool and remember one row, or count why not."""
        self.intake.read += 1
        self.bar.update()
        if not isinstance(row, dict):
            self.intake.drop("not_a_row")
        elif not self.conversations.keeps(row, place):
            self.intake.drop("where")
        else:
            self.draw(row, place)

    def draw(self, row: dict[str, Any], place: str) -> None:
        """Keep the row if `max_rows` has room for it, in place of another where it is full."""
        rank = b""
        if self.dataset.max_rows is not None:
            rank = priority(self.intake.recipe.seed, json.dumps(row, sort_keys=True).encode())
            if not self.sample.wants(rank):
                self.intake.drop("max_rows")
                return
        found = self.remember(row, place)
        if isinstance(found, Left):
            self.intake.drop(found.reason)
            return
        self.kept.append(found)
        gone = self.sample.add(rank, len(self.kept) - 1)
        if gone is not None:
            self.kept[gone] = None
            self.intake.drop("max_rows")

    def remember(self, row: dict[str, Any], place: str) -> Record | Left:
        """Spool the row's conversation and make its record."""
        messages = self.conversations.read(row, place)
        if isinstance(messages, Left):
            return messages
        text = json.dumps(messages, ensure_ascii=False)
        try:
            exact, masked = digest(text), digest(mask(text))
        except UnicodeEncodeError:
            return Left("not_unicode")
        group = self.group(row, place, exact, masked)
        values = tuple(self.value(row, name, place) for name in self.intake.fields)
        return Record(self.intake.spool.write([place, messages]), exact, masked, group, values)

    def group(self, row: dict[str, Any], place: str, exact: bytes, masked: bytes) -> bytes:
        """What rows on one side share: the masked text or a field's value; the whole text where nothing is grouped."""
        name = self.intake.recipe.split.group_by
        if name is None:
            return exact
        return masked if name == "masked_text" else digest(json.dumps(pick(row, name, "split.group_by", place)))

    def value(self, row: dict[str, Any], name: str, place: str) -> str | None:
        """The field as text; the one to stratify by must be there."""
        required = name == self.intake.recipe.split.stratify_by
        value = pick(row, name, "split.stratify_by", place) if required else row.get(name)
        return (
            None if value is None and not required else intern(value if isinstance(value, str) else json.dumps(value))
        )

    def check(self, notes: list[dict[str, Any]], rows: int) -> None:
        """DataError naming the members where most could not be read or none held a row."""
        bad = [note for note in notes if "unreadable" in note]
        names = "; ".join(f"{note['member'] or note['path']}: {note['unreadable']}" for note in bad[:NAMED])
        if bad and 2 * len(bad) > sum("skipped" not in note for note in notes):
            raise DataError(f"{len(bad)} of {len(notes)} files or members of {self.dataset.path} cannot be read", names)
        if not rows:
            skipped = ", ".join(str(note["member"] or note["path"]) for note in notes[:NAMED])
            message = f"{self.dataset.path} holds no rows of type {self.dataset.type}"
            raise DataError(message, f"looked in: {skipped}" if skipped else None)
