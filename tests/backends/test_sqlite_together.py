"""Locks taken together on the embedded store: random mixes and killed processes finish, and never overlap."""

from __future__ import annotations

from support.harnesses.sqlite import SqliteHarness
from support.together import mixed, play, play_with_kills


@mixed(30)
def test_mixes_always_finish_and_never_overlap(mix):
    play(SqliteHarness, mix)


def test_processes_that_are_killed_hold_up_nobody_for_long():
    assert play_with_kills(SqliteHarness, seconds=6.0, kills=3) > 3
