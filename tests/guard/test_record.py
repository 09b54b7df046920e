"""The rule that a step must pass, and the record that it reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.guard.record import LONGEST, Record, judged

records = st.builds(
    Record,
    st.integers(1, 3) | st.integers(1, LONGEST),
    st.sampled_from(["0" * 16, "f" * 16]),
    st.integers(0, 3),
)


@given(records)
def test_a_record_is_read_as_it_was_written(record):
    assert Record.of(str(record)) == record
    assert len(str(record)) == 58


@pytest.mark.parametrize("text", ["", "1.2.3", str(Record(1, "0" * 16)) + "\n", str(Record(1, "g" * 16))])
def test_another_text_is_no_record(text):
    with pytest.raises(ValueError, match="not a record"):
        Record.of(text)


@given(st.none() | records, records)
def test_nothing_takes_effect_over_a_higher_fence(stored, asked):
    if stored is not None and stored.fence > asked.fence:
        assert judged(stored, asked) == "STALE"


@given(st.none() | records, records)
def test_a_write_takes_effect_once_and_only_in_its_own_opening(stored, asked):
    if asked.step and judged(stored, asked) == "APPLY":
        assert stored[:2] == asked[:2]
        assert judged(asked, asked) == "DONE"


@given(records)
def test_an_opening_may_follow_a_lower_or_an_equal_fence(stored):
    assert judged(stored, Record(stored.fence, "a" * 16)) == "APPLY"
    assert judged(None, stored._replace(step=0)) == "APPLY"
