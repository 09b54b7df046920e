"""Locks taken together on etcd: random mixes and killed processes always finish, and never overlap."""

from __future__ import annotations

from support.harnesses.etcd import EtcdHarness
from support.together import mixed, play, play_with_kills
from support.together_aio import play_tasks


@mixed(8)
def test_mixes_always_finish_and_never_overlap(mix):
    play(EtcdHarness, mix)


@mixed(8)
def test_mixes_of_tasks_on_one_loop_always_finish_and_never_overlap(mix):
    play_tasks(EtcdHarness, mix)


def test_processes_that_are_killed_hold_up_nobody_for_long():
    assert play_with_kills(EtcdHarness, seconds=6.0, kills=3) > 3
