"""Locks taken together on Redis: random mixes, and processes that are killed, always finish and never overlap."""

from __future__ import annotations

from hypothesis import example, given, settings

from support.harnesses.redis import RedisHarness
from support.together import CRASHES, MIXES, OPPOSITE, TWO_AT_ONCE, play, play_with_kills
from support.together_aio import play_tasks


@settings(max_examples=max(15, settings().max_examples // 50))
@given(mix=MIXES)
@example(mix=OPPOSITE)
@example(mix=TWO_AT_ONCE)
@example(mix=CRASHES)
def test_mixes_always_finish_and_never_overlap(mix):
    play(RedisHarness, mix)


@settings(max_examples=max(15, settings().max_examples // 50))
@given(mix=MIXES)
@example(mix=OPPOSITE)
@example(mix=TWO_AT_ONCE)
@example(mix=CRASHES)
def test_mixes_of_tasks_on_one_loop_always_finish_and_never_overlap(mix):
    play_tasks(RedisHarness, mix)


def test_processes_that_are_killed_hold_up_nobody_for_long():
    assert play_with_kills(RedisHarness, seconds=6.0, kills=3) > 3
