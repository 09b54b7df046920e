"""Locks taken together on the embedded store: random mixes, and processes that are killed, always finish and never overlap."""

from __future__ import annotations

from hypothesis import example, given, settings

from support.harnesses.sqlite import SqliteHarness
from support.together import CRASHES, MIXES, OPPOSITE, TWO_AT_ONCE, play, play_with_kills


@settings(max_examples=max(30, settings().max_examples // 50))
@given(mix=MIXES)
@example(mix=OPPOSITE)
@example(mix=TWO_AT_ONCE)
@example(mix=CRASHES)
def test_mixes_always_finish_and_never_overlap(mix):
    play(SqliteHarness, mix)


def test_processes_that_are_killed_hold_up_nobody_for_long():
    assert play_with_kills(SqliteHarness, seconds=6.0, kills=3) > 3
