"""Splits: shares, quotas, strata, groups, and that content and seed alone decide."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sysml_run.errors import DataError
from sysml_run.recipe import CrossValidation, Split
from sysml_run.worker.data.masking import digest, mask
from sysml_run.worker.data.split import SIDES, assign, quotas


def split(validation: float = 0.2, test: float = 0.0, by: str | None = None, group: str | None = None) -> Split:
    return Split(validation, test, by, group, "none", None)


def pairs(names: list[str]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(map(digest, names)), np.uint64).reshape(-1, 2)


def keys(count: int, start: int = 0) -> NDArray[np.uint64]:
    return pairs([str(i) for i in range(start, start + count)])


def sides(*given: object) -> list[str]:
    return [SIDES[side] for side in assign(*given)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("share", "rows"), [(7, 7), (99, 99)])
def test_a_number_of_rows_is_exact(share: float, rows: int) -> None:
    assert Counter(sides(split(share), 1, keys(100), None))["validation"] == rows


def test_a_share_is_kept_by_chance_and_never_empty() -> None:
    found = Counter(sides(split(0.2, 0.1), 1, keys(20_000), None))
    assert abs(found["validation"] - 4000) < 250
    assert abs(found["test"] - 2000) < 200
    for count in range(3, 30):
        assert set(sides(split(0.01, 0.01), count, keys(count), None)) == set(SIDES)
        assert set(sides(split(0.98, 0.01), count, keys(count), None)) == set(SIDES)


def test_shares_and_numbers_together() -> None:
    found = Counter(sides(split(0.2, 10), 1, keys(1000), None))
    assert found["test"] == 10
    assert abs(found["validation"] - 200) < 50
    assert Counter(sides(split(7, 10), 1, keys(100), None)) == {"train": 83, "validation": 7, "test": 10}


def test_strata_keep_their_shares_to_the_row() -> None:
    strata = np.array([0] * 500 + [1] * 300 + [2] * 10)
    found = Counter(zip(strata.tolist(), sides(split(0.2, 0.1, "severity"), 3, keys(810), strata), strict=True))
    assert [found[name, "validation"] for name in range(3)] == [100, 60, 2]
    assert [found[name, "test"] for name in range(3)] == [50, 30, 1]


def test_equal_rows_stay_together_unless_a_quota_parts_them() -> None:
    names = [str(i % 50) for i in range(500)]
    apart = set(zip(names, sides(split(0.5), 1, pairs(names), None), strict=True))
    assert len(apart) == 50
    strata = np.zeros(10, np.int64)
    assert Counter(sides(split(0.5, by="s"), 1, pairs(["same"] * 10), strata)) == {"train": 5, "validation": 5}
    with pytest.raises(DataError, match=r"10 rows, in 1 group by masked_text, validation 0.5") as caught:
        assign(split(0.5, group="masked_text"), 1, pairs(["same"] * 10), None)
    assert caught.value.hint == "every row asks the same; group by another field or leave group_by out"


@pytest.mark.parametrize("by", [None, "severity"])
def test_order_of_rows_does_not_matter_and_the_seed_does(by: str | None) -> None:
    def found(numbers: list[int], seed: int) -> dict[int, str]:
        strata = np.array([number % 3 for number in numbers]) if by else None
        return dict(zip(numbers, sides(split(by=by), seed, pairs([str(n) for n in numbers]), strata), strict=True))

    order = list(range(200))
    random.Random(0).shuffle(order)
    assert found(order, 5) == found(sorted(order), 5)
    assert found(order, 6) != found(order, 5)


@settings(max_examples=50, deadline=None)
@given(st.integers(20, 400), st.integers(1, 200), st.integers(0, 9), st.sampled_from([None, "masked_text"]))
def test_more_rows_move_none_of_a_share_across(rows: int, more: int, seed: int, group: str | None) -> None:
    before = assign(split(0.3, 0.2, group=group), seed, keys(rows), None)
    after = assign(split(0.3, 0.2, group=group), seed, keys(rows + more), None)
    moved = np.flatnonzero(before != after[:rows])
    assert not len(moved) or min(np.bincount(before, minlength=3)) == 1  # a side that would have been empty


def test_more_rows_move_few_of_a_quota_across() -> None:
    strata = np.arange(10_100) % 5
    before = assign(split(by="s"), 5, keys(10_000), strata[:10_000])
    after = assign(split(by="s"), 5, keys(10_100), strata)
    assert 0 < (before != after[:10_000]).sum() < 30


def test_a_fixed_side_is_kept_whole_and_shares_are_of_the_rest() -> None:
    fixed = np.array([-1] * 100 + [0] * 50 + [1] * 30 + [2] * 20, np.int8)
    found = assign(split(10), 1, keys(200), None, fixed)
    assert (found[100:] == fixed[100:]).all()
    assert Counter(found[:100].tolist()) == {0: 90, 1: 10}
    only = assign(split(0.1), 1, keys(5), None, np.zeros(5, np.int8))
    assert not only.any()
    with pytest.raises(DataError, match="no row is left to train on"):
        assign(split(0.1), 1, keys(5), None, np.ones(5, np.int8))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), min_size=40, max_size=300), st.integers(0, 9))
def test_groups_stay_whole_and_quotas_are_near(rows: list[tuple[int, int]], seed: int) -> None:
    names, strata = [str(group) for group, _ in rows], np.array([stratum for _, stratum in rows])
    largest = Counter(names).most_common(1)[0][1]
    try:
        found = sides(split(0.2, 0.1, "s", "g"), seed, pairs(names), strata)
    except DataError:
        assert largest > 4 or len(set(names)) < 20
        return
    assert len(set(zip(names, found, strict=True))) == len(set(names))
    assert abs(Counter(found)["validation"] - 0.2 * len(rows)) <= 3 * largest


def test_quotas_add_up() -> None:
    totals = Counter({0: 333, 1: 333, 2: 334})
    assert quotas(0.1, totals).total() == 100
    assert quotas(2000, totals) == totals


def test_nothing_left_to_train_on() -> None:
    with pytest.raises(DataError, match="no row is left to train on"):
        assign(split(100), 1, keys(100), None)
    with pytest.raises(DataError, match=r"split\.validation would be empty"):
        assign(split(0.5), 1, keys(1), None)


def test_mask() -> None:
    assert mask("port 22 at 10.0.0.1, id ioc_6793d942, 0xdeadBEEF, facade") == "port # at #.#.#.#, id ioc_#, #, facade"


def dealt(folds: int, names: list[str], strata: NDArray[np.int64] | None = None, **told: object) -> list[list[str]]:
    """The side of every row, for each fold."""
    kind = split(**told)  # type: ignore[arg-type]
    numbers = range(1, folds + 1)
    return [sides(kind, 5, pairs(names), strata, None, CrossValidation(folds, number)) for number in numbers]


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(20, 120), st.booleans(), st.booleans(), st.integers(0, 5), st.randoms())
def test_folds_validate_every_row_once_and_part_no_group(
    folds: int, count: int, by: bool, grouped: bool, test: int, draw: random.Random
) -> None:
    names = [str(draw.randrange(count)) for _ in range(count)]
    strata = np.array([draw.randrange(3) for _ in names]) if by else None
    told = {"test": test, "by": "s" if by else None, "group": "masked_text" if grouped else None}
    try:
        found = dealt(folds, names, strata, **told)
    except DataError:
        assert len(set(names)) < folds + test + 3
        return
    for row, name in enumerate(names):
        each = [one[row] for one in found]
        assert each.count("validation") == (0 if "test" in each else 1)
        assert set(each) in ({"test"}, {"train", "validation"})
        alike = [other for other, its in enumerate(names) if its == name]
        assert all([one[other] for one in found] == each for other in alike if not (by and "test" in each))
    assert all("train" in one and "validation" in one for one in found)


def test_folds_are_of_one_size_and_of_the_same_strata() -> None:
    strata = np.array([0] * 100 + [1] * 50 + [2] * 10)
    for one in dealt(5, [str(at) for at in range(160)], strata):
        counts = Counter(zip(strata.tolist(), one, strict=True))
        assert [counts[name, "validation"] for name in range(3)] == [20, 10, 2]
    whole = [str(at // 7) for at in range(200)]
    sizes = [one.count("validation") for one in dealt(4, whole, group="g")]
    assert max(sizes) - min(sizes) <= 7


def test_rows_that_are_alike_are_in_one_fold_even_with_strata() -> None:
    found = dealt(2, ["a", "a", "b", "b", "c", "c"], np.array([0, 1, 0, 1, 0, 1]), by="s")
    assert all(one[at] == one[at + 1] for one in found for at in (0, 2, 4))


def test_before_a_fold_is_chosen_the_rows_are_looked_at_as_in_the_first() -> None:
    first = sides(split(), 1, keys(20), None, None, CrossValidation(4, 1))
    assert sides(split(), 1, keys(20), None, None, CrossValidation(4, None)) == first


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"4 folds take as many groups, and beside test there are 3$"):
        dealt(4, ["a", "b", "c"] * 3)
