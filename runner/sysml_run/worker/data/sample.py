"""`max_rows`: the k rows of smallest priority, kept while streaming past rows whose number is not known."""

from __future__ import annotations

import heapq


class Sample:
    """A bounded sample; which rows it ends up with does not depend on the order they came in."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.heap: list[tuple[int, int]] = []  # the largest priority on top, negated

    def wants(self, priority: bytes) -> bool:
        """Whether a row of this priority would stay for now."""
        return self.size is None or len(self.heap) < self.size or int.from_bytes(priority) < -self.heap[0][0]

    def add(self, priority: bytes, number: int) -> int | None:
        """Keep row `number`; the number of the row that leaves for it, if one does."""
        if self.size is None:
            return None
        entry = (-int.from_bytes(priority), number)
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, entry)
            return None
        return heapq.heappushpop(self.heap, entry)[1]
