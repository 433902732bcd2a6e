"""Lines become batches whose memory is bounded, and test sets are told by samples from all over them."""

import pytest

from nmt.translation import Translated
from nmt.translation.batching import LONG, cut


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


@pytest.mark.parametrize(("count", "places"), [(0, []), (2, [0, 5]), (5, [0, 2, 4, 6, 8]), (99, list(range(10)))])
def test_samples_come_from_all_over_the_test_set_and_each_once(count: int, places: list[int]) -> None:
    lines = [str(i) for i in range(10)]
    found = Translated("held", lines, lines, lines).samples(count)
    assert [int(sample["source"]) for sample in found] == places
    assert all(sample["reference"] == sample["translation"] == sample["source"] for sample in found)
