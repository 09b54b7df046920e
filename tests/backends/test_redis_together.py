"""Locks taken together on Redis: random mixes and killed processes always finish, and never overlap."""

from __future__ import annotations

from support.harnesses.redis import RedisHarness
from support.together import mixed, play, play_with_kills
from support.together_aio import play_tasks


@mixed(15)
def test_mixes_always_finish_and_never_overlap(mix):
    play(RedisHarness, mix)


@mixed(15)
def test_mixes_of_tasks_on_one_loop_always_finish_and_never_overlap(mix):
    play_tasks(RedisHarness, mix)


def test_processes_that_are_killed_hold_up_nobody_for_long():
    assert play_with_kills(RedisHarness, seconds=6.0, kills=3) > 3
