"""The first pass: every file read once, every row mapped to a conversation on disk, what is left out counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sysml_run.datafiles import Source
from sysml_run.errors import DataError
from sysml_run.recipe import Dataset, Recipe

from . import workers
from .archive import Member, members, printable
from .bars import ReadingBar
from .columns import Builder
from .documents import UNREADABLE, documents
from .keys import Keys
from .mapper import Gone, Kept, Mapper, elsewhere, shape
from .masking import priority
from .rowtypes import RowType, row_type
from .sample import Sample
from .spool import Spool

NAMED = 5
CHOSEN = ("where", "route", "max_rows", "duplicate", "drawn")  # left out because the recipe says so


@dataclass
class Found:
    """What the first pass says of the rows; JSON values. `read` = rows on disk + `dropped`."""

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    files: list[dict[str, Any]] = field(default_factory=list)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    where: list[dict[str, Any]] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    redacted: list[dict[str, Any]] = field(default_factory=list)
    refs: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)


class Intake:
    """Reads a whole recipe: conversations go to `spool`, everything else of a row into `rows`."""

    def __init__(self, recipe: Recipe, spool: Spool, processes: int = 1) -> None:
        self.recipe, self.spool, self.processes = recipe, spool, processes
        self.rows = Builder(Keys(recipe.split).fields)
        self.found = Found()

    def read_all(self, sources: list[list[Source]]) -> Found:
        """Read every dataset; DataError when one has no rows, or most of its members cannot be read."""
        with ReadingBar(sum(source.size for files in sources for source in files)) as bar:
            for number, (dataset, files) in enumerate(zip(self.recipe.datasets, sources, strict=True)):
                DatasetReader(self, dataset, number, bar).read(files)
        self.found.names, self.found.dropped = self.rows.names, Counter(dict(sorted(self.found.dropped.items())))
        return self.found


class DatasetReader:
    """Reads one dataset of the recipe into the intake."""

    def __init__(self, intake: Intake, dataset: Dataset, number: int, bar: ReadingBar) -> None:
        self.intake, self.dataset, self.number, self.bar = intake, dataset, number, bar
        self.found = intake.found
        self.type: RowType = row_type(dataset)
        self.mapper = Mapper(intake.recipe, number)
        self.sample = Sample(dataset.max_rows)
        self.counts: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.seen = ""

    def read(self, files: list[Source]) -> None:
        noted = len(self.found.files)
        if self.apart(files):
            rows, recipe = self.objects(files), self.intake.recipe
            for place, found in elsewhere(self.mapper, recipe, self.number, rows, self.intake.processes):
                self.settle(found, place)
        else:
            for place, row in self.objects(files):
                self.take(row, place)
        self.check(self.found.files[noted:], self.counts["read"])
        self.note()
        self.tell()

    def apart(self, files: list[Source]) -> bool:
        """Whether others map the rows; not where `max_rows` needs to know of each row before the next is looked at."""
        large = workers.large(sum(source.size for source in files))
        return large and self.intake.processes >= workers.MANY and self.dataset.max_rows is None

    def objects(self, files: list[Source]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every row of the files that is an object, with its place."""
        for source in files:
            with self.bar.file(source) as opened:
                for member in members(source.path, source.name, opened):
                    for place, row in self.rows(member):
                        self.counts["read"] += 1
                        self.found.read += 1
                        self.bar.row()
                        if isinstance(row, dict):
                            yield place, row
                        else:
                            self.drop("not_a_row", place, self.seen if row is None else shape(row))

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
            if self.seen:
                note["found"] = self.seen

    def find(self, member: Member, note: dict[str, Any]) -> Iterator[Any]:
        """Rows of every document in the member; a line that holds none comes as None and is noted."""
        self.seen = ""
        for document in documents(member.stream, member.label):
            some = False
            for row in self.type.rows(document.value, member.label) if document.error is None else ():
                some = True
                yield row
            if not some:
                self.seen = "" if document.error else shape(document.value)
            if not some and document.line is not None:
                why = document.error or f"not a row: found {self.seen}, wanted {self.type.wants}"
                note.setdefault("bad_lines", []).append([document.line, why])
                del note["bad_lines"][NAMED:]
                yield None

    def drop(self, reason: str, place: str | None = None, found: str = "") -> None:
        """Count a row that is left out; of those whose shape is at fault the first is named."""
        self.found.dropped[reason] += 1
        self.dropped[reason] += 1
        if place is not None and reason not in self.first:
            self.first[reason] = f"{place}, which has {found}" if found else place

    def take(self, row: dict[str, Any], place: str) -> None:
        """Keep the row if `max_rows` has room for it, in place of another where it is full."""
        chosen, rank = self.mapper.chosen(row, place), b""
        if isinstance(chosen, Gone):
            self.settle(chosen, place)
            return
        if self.dataset.max_rows is not None:
            rank = priority(self.intake.recipe.seed, json.dumps(chosen, sort_keys=True).encode())
            if not self.sample.wants(rank):
                self.drop("max_rows")
                return
        self.settle(self.mapper.made(chosen, place), place, rank)

    def settle(self, found: Kept | Gone, place: str, rank: bytes = b"") -> None:
        """Spool and remember a row, or count why not."""
        if isinstance(found, Gone):
            self.drop(found.reason, None if found.reason in CHOSEN else place, found.found)
            return
        rows = self.intake.rows
        number = rows.add(self.intake.spool.write(found.line), self.number, found.digests, found.values)
        gone = self.sample.add(rank, number)
        if gone is not None:
            rows.leave_out(gone)
            self.drop("max_rows")

    def tell(self) -> None:
        """Leave how many rows there are of this dataset and why others are not; DataError where there is none."""
        read, dropped = self.counts["read"], dict(sorted(self.dropped.items()))
        kept = read - self.dropped.total()
        self.found.datasets.append(
            {"dataset": self.number, "type": self.dataset.type, "read": read, "kept": kept, "dropped": dropped}
            | {"first": dict(sorted(self.first.items())), "wants": self.type.wants}
        )
        if not kept:
            firsts = [f"the first with {reason} is row {where}" for reason, where in self.first.items()]
            wanted = f"type {self.dataset.type} wants {self.type.wants}" if self.first else "look at where and map"
            message = f"datasets.{self.number}: none of {read} rows can be used: {counted(dropped)}"
            raise DataError(message, "; ".join([wanted, *firsts]))

    def note(self) -> None:
        """Leave the counts of `redact`, `where` and `route`; DataError where one of the latter leaves nothing."""
        self.found.redacted += self.mapper.conversations.redactor.facts(self.number)
        self.found.refs.update(self.mapper.conversations.refs)
        read, kept, match = self.counts["read"], self.mapper.counts["where"], self.mapper.counts["match"]
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
            skipped = ", ".join(map(looked, notes[:NAMED]))
            message = f"{self.dataset.path} holds no rows of type {self.dataset.type}"
            raise DataError(message, f"wanted: {self.type.wants}" + (f"; looked in: {skipped}" if skipped else ""))


def looked(note: dict[str, Any]) -> str:
    """A member in which there were no rows, and what was there."""
    name = str(note["member"] or note["path"])
    return f"{name}, which has {note['found']}" if "found" in note else name


def counted(dropped: Mapping[str, int]) -> str:
    """Reasons with their rows."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items())) or "nothing was read"
