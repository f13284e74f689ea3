"""Splits: quotas, strata, groups, and that content and seed alone decide."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysml_run.errors import DataError
from sysml_run.recipe import Split
from sysml_run.worker.data.masking import digest, mask
from sysml_run.worker.data.split import assign, quotas


def split(validation: float = 0.2, test: float = 0.0, by: str | None = None, group: str | None = None) -> Split:
    return Split(validation, test, by, group)


def keys(count: int) -> list[bytes]:
    return [digest(str(i)) for i in range(count)]


@pytest.mark.parametrize(("share", "rows"), [(0.2, 20), (0.005, 1), (7, 7), (0.99, 99)])
def test_share_or_count(share: float, rows: int) -> None:
    assert Counter(assign(split(share), 1, keys(100), [""] * 100))["validation"] == rows


def test_three_sides() -> None:
    sides = Counter(assign(split(0.2, 10), 1, keys(100), [""] * 100))
    assert sides == {"train": 70, "validation": 20, "test": 10}


def test_strata_keep_their_shares() -> None:
    strata = ["info"] * 500 + ["low"] * 300 + ["critical"] * 10
    sides = assign(split(0.2, 0.1, "severity"), 3, keys(810), strata)
    found = Counter(zip(strata, sides, strict=True))
    assert [found[name, "validation"] for name in ("info", "low", "critical")] == [100, 60, 2]
    assert [found[name, "test"] for name in ("info", "low", "critical")] == [50, 30, 1]


def test_equal_rows_part_unless_grouped() -> None:
    assert Counter(assign(split(0.5), 1, [b"same"] * 10, [""] * 10)) == {"train": 5, "validation": 5}
    with pytest.raises(DataError, match=r"10 rows grouped by masked_text"):
        assign(split(0.5, group="masked_text"), 1, [b"same"] * 10, [""] * 10)


def test_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    found = dict(zip(keys(200), assign(split(), 5, keys(200), [""] * 200), strict=True))
    order = keys(200)
    random.Random(0).shuffle(order)
    assert dict(zip(order, assign(split(), 5, order, [""] * 200), strict=True)) == found
    assert dict(zip(keys(200), assign(split(), 6, keys(200), [""] * 200), strict=True)) != found


def test_more_rows_move_few_across() -> None:
    before = assign(split(), 5, keys(1000), [""] * 1000)
    after = assign(split(), 5, keys(1100), [""] * 1100)
    assert sum(a != b for a, b in zip(before, after, strict=False)) < 20


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), min_size=40, max_size=300), st.integers(0, 9))
def test_groups_stay_whole_and_quotas_are_near(rows: list[tuple[int, str]], seed: int) -> None:
    names, strata = [digest(str(group)) for group, _ in rows], [stratum for _, stratum in rows]
    largest = Counter(names).most_common(1)[0][1]
    try:
        sides = assign(split(0.2, 0.1, "s", "g"), seed, names, strata)
    except DataError:
        assert largest > 4 or len(set(names)) < 20
        return
    assert len(set(zip(names, sides, strict=True))) == len(set(names))
    assert abs(Counter(sides)["validation"] - 0.2 * len(rows)) <= 3 * largest


def test_quotas_add_up() -> None:
    totals: Counter[object] = Counter({"a": 333, "b": 333, "c": 334})
    assert quotas(0.1, totals).total() == 100
    assert quotas(2000, totals) == totals


@pytest.mark.parametrize("share", [1.0 - 1e-9, 100])
def test_nothing_left_to_train_on(share: float) -> None:
    with pytest.raises(DataError, match="no row is left to train on"):
        assign(split(share), 1, keys(100), [""] * 100)


def test_mask() -> None:
    assert mask("port 22 at 10.0.0.1, id ioc_6793d942, 0xdeadBEEF, facade") == "port # at #.#.#.#, id ioc_#, #, facade"
