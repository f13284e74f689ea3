"""The first pass: every file read once, every row mapped to a conversation on disk, what is left out counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sysml_run.datafiles import Source
from sysml_run.errors import DataError
from sysml_run.recipe import Dataset, Recipe

from .archive import Member, members, printable
from .bars import ReadingBar
from .columns import Builder
from .conversations import Conversations, Left
from .documents import UNREADABLE, documents
from .keys import Keys
from .masking import priority
from .rowtypes import RowType, row_type
from .sample import Sample
from .spool import Spool

NAMED = 5


@dataclass
class Found:
    """What the first pass says of the rows; JSON values. `read` = rows on disk + `dropped`."""

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    files: list[dict[str, Any]] = field(default_factory=list)
    where: list[dict[str, Any]] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    redacted: list[dict[str, Any]] = field(default_factory=list)
    refs: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)


class Intake:
    """Reads a whole recipe: conversations go to `spool`, everything else of a row into `rows`."""

    def __init__(self, recipe: Recipe, spool: Spool) -> None:
        self.recipe, self.spool = recipe, spool
        self.keys = Keys(recipe.split)
        self.rows = Builder(self.keys.fields)
        self.found = Found()

    def read_all(self, sources: list[list[Source]]) -> Found:
        """Read every dataset; DataError when one has no rows, or most of its members cannot be read."""
        with ReadingBar(sum(source.size for files in sources for source in files)) as bar:
            for number, (dataset, files) in enumerate(zip(self.recipe.datasets, sources, strict=True)):
                DatasetReader(self, dataset, number, bar).read(files)
        self.found.names = self.rows.names
        return self.found


class DatasetReader:
    """Reads one dataset of the recipe into the intake."""

    def __init__(self, intake: Intake, dataset: Dataset, number: int, bar: ReadingBar) -> None:
        self.intake, self.dataset, self.number, self.bar = intake, dataset, number, bar
        self.found = intake.found
        self.type: RowType = row_type(dataset)
        self.conversations = Conversations(dataset, number)
        self.sample = Sample(dataset.max_rows)
        self.counts: Counter[str] = Counter()

    def read(self, files: list[Source]) -> None:
        noted = len(self.found.files)
        for source in files:
            with self.bar.file(source) as opened:
                for member in members(source.path, source.name, opened):
                    for place, row in self.rows(member):
                        self.take(row, place)
        self.check(self.found.files[noted:], self.counts["read"])
        self.note()

    def rows(self, member: Member) -> Iterator[tuple[str, Any]]:
        """Rows with their place; a member that cannot be read on is noted with its reason and left."""
        note: dict[str, Any] = {"path": member.file, "member": member.name and printable(member.name), "rows": 0}
        self.found.files.append(note)
        found = self.find(member, note)
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

    def find(self, member: Member, note: dict[str, Any]) -> Iterator[Any]:
        """Rows of every document in the member; a line that holds none comes as None and is noted."""
        for document in documents(member.stream, member.label):
            some = False
            for row in self.type.rows(document.value, member.label) if document.error is None else ():
                some = True
                yield row
            if not some and document.line is not None:
                note.setdefault("bad_lines", []).append(
                    [document.line, document.error or f"not a row: {self.type.wants}"]
                )
                del note["bad_lines"][NAMED:]
                yield None

    def drop(self, reason: str) -> None:
        self.found.dropped[reason] += 1

    def take(self, row: Any, place: str) -> None:
        """Map, spool and remember one row, or count why not."""
        self.found.read += 1
        self.counts["read"] += 1
        self.bar.row()
        if not isinstance(row, dict):
            self.drop("not_a_row")
            return
        row = self.conversations.redacted(row)
        if not self.conversations.keeps(row, place):
            self.drop("where")
        elif not self.routed(row, place):
            self.drop("route")
        else:
            self.draw(row, place)

    def routed(self, row: dict[str, Any], place: str) -> bool:
        """Whether the row goes the way that the dataset takes."""
        self.counts["where"] += 1
        if self.dataset.route is None:
            return True
        match = bool(self.conversations.route(row, place))
        self.counts["match"] += match
        return match == (self.dataset.route.take == "match")

    def draw(self, row: dict[str, Any], place: str) -> None:
        """Keep the row if `max_rows` has room for it, in place of another where it is full."""
        rank = b""
        if self.dataset.max_rows is not None:
            rank = priority(self.intake.recipe.seed, json.dumps(row, sort_keys=True).encode())
            if not self.sample.wants(rank):
                self.drop("max_rows")
                return
        number = self.remember(row, place)
        if isinstance(number, Left):
            self.drop(number.reason)
            return
        gone = self.sample.add(rank, number)
        if gone is not None:
            self.intake.rows.leave_out(gone)
            self.drop("max_rows")

    def remember(self, row: dict[str, Any], place: str) -> int | Left:
        """Spool the row's conversation and add it to the columns; its number there."""
        messages = self.conversations.read(row, place)
        if isinstance(messages, Left):
            return messages
        keys, text = self.intake.keys, json.dumps(messages, ensure_ascii=False)
        try:
            digests = keys.digests(text, row, lambda: self.conversations.fields(row), place)
        except UnicodeEncodeError:
            return Left("not_unicode")
        values = keys.values(row, lambda: self.conversations.fields(row), place)
        offset = self.intake.spool.write(f"[{json.dumps(place)}, {text}]".encode())
        return self.intake.rows.add(offset, self.number, digests, values)

    def note(self) -> None:
        """Leave the counts of `redact`, `where` and `route`; DataError where one of the latter leaves nothing."""
        self.found.redacted += self.conversations.redactor.facts(self.number)
        self.found.refs.update(self.conversations.refs)
        read, kept, match = self.counts["read"], self.counts["where"], self.counts["match"]
        if self.dataset.where is not None:
            self.found.where.append(
                {"dataset": self.number, "where": self.dataset.where, "kept": kept, "left_out": read - kept}
            )
            if not kept:
                message = f"datasets.{self.number}.where keeps none of {read} rows: {self.dataset.where}"
                raise DataError(message, "look at the rows with the expression removed")
        if self.dataset.route is not None:
            route = {"dataset": self.number, "when": self.dataset.route.when, "take": self.dataset.route.take}
            self.found.routes.append(route | {"match": match, "rest": kept - match})
            if not match or match == kept:
                side = "none" if not match else "all"
                message = f"datasets.{self.number}.route: {side} of {kept} rows match: {self.dataset.route.when}"
                raise DataError(message, "both ways must have rows; remove route where all rows are meant")

    def check(self, notes: list[dict[str, Any]], rows: int) -> None:
        """DataError naming the members where most could not be read or none held a row."""
        bad = [note for note in notes if "unreadable" in note]
        names = "; ".join(f"{note['member'] or note['path']}: {note['unreadable']}" for note in bad[:NAMED])
        if bad and 2 * len(bad) > sum("skipped" not in note for note in notes):
            raise DataError(f"{len(bad)} of {len(notes)} files or members of {self.dataset.path} cannot be read", names)
        if not rows:
            skipped = ", ".join(str(note["member"] or note["path"]) for note in notes[:NAMED])
            message = f"{self.dataset.path} holds no rows of type {self.dataset.type}"
            raise DataError(message, f"wanted: {self.type.wants}" + (f"; looked in: {skipped}" if skipped else ""))
