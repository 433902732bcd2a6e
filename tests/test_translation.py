"""Lines become batches whose memory is bounded, and test sets are told by samples from all over them."""

import pytest

from nmt.translation import Translated
from nmt.translation.batching import LONG, Window, cut


def test_batches_hold_every_line_once_and_no_more_than_their_size() -> None:
    lengths = sorted([3] * 20 + [LONG] * 7)
    batches = list(cut(range(27), lengths, 8))
    assert [i for batch in batches for i in batch] == list(range(27))
    assert max(map(len, batches)) == 8


def test_very_long_lines_make_smaller_batches() -> None:
    lengths = [10, 10, 10 * LONG, 10 * LONG, 100 * LONG]
    batches = list(cut(range(5), lengths, 20))
    assert batches == [[0, 1], [2, 3], [4]]
    assert list(cut([], [], 20)) == []


def test_batches_that_are_searched_in_turns_are_equal_shares_but_for_very_long_lines() -> None:
    sizes = [*range(1, LONG + 1), 0, 10 * LONG, 20 * LONG]
    window = Window([str(size) for size in sizes], sizes, "0", most=10, share=40)
    batches = [[int(item) for item in batch] for batch in window]
    assert batches[:2] == [[20 * LONG], [10 * LONG]]  # as long as ever, and first
    shares = batches[2:]
    assert sorted(size for share in shares for size in share) == sizes[:LONG]
    assert all(share == sorted(share, reverse=True) for share in shares)
    assert {len(share) for share in shares} == {32}
    assert max(map(sum, shares)) - min(map(sum, shares)) < LONG
    assert [found for batch in batches for found in window.put(map(str, batch))] == [str(size) for size in sizes]


@pytest.mark.parametrize(("count", "places"), [(0, []), (2, [0, 5]), (5, [0, 2, 4, 6, 8]), (99, list(range(10)))])
def test_samples_come_from_all_over_the_test_set_and_each_once(count: int, places: list[int]) -> None:
    lines = [str(i) for i in range(10)]
    found = Translated("held", lines, lines, lines).samples(count)
    assert [int(sample["source"]) for sample in found] == places
    assert all(sample["reference"] == sample["translation"] == sample["source"] for sample in found)
