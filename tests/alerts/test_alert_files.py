"""The runner when its files fail: damaged, locked, unwritable, on a full disk, in a process's last second."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from lockkit.alerts import inbox as inboxes
from lockkit.alerts.happenings import Happening
from lockkit.alerts.inbox import Inbox, hand_over, handed_over

from .test_alert_runner import lost, world

__all__ = ["world"]


def locks(runner):
    return [one.members[0].labels["lock"] for one in runner.told]


@pytest.mark.parametrize("name", ["decisions.json", "state.json", "both"])
def test_a_damaged_file_is_moved_aside_and_stops_no_alert(world, caplog, name):
    runner = world.runner()
    runner.desk.folder.mkdir(parents=True)
    names = ["decisions.json", "state.json"] if name == "both" else [name]
    for one in names:
        (runner.desk.folder / one).write_text("{broken")
    runner.inbox.lockkit_alert(lost())
    with caplog.at_level(logging.ERROR, "lockkit.alerts"):
        world.steps(runner, 60)
    assert locks(runner) == ["a"]
    for one in names:
        assert (runner.desk.folder / f"{one}.damaged").read_text() == "{broken"
        assert caplog.text.count(f"it is now {one}.damaged") == 1


def test_the_state_of_a_newer_version_is_left_alone(world, caplog):
    runner = world.runner()
    runner.desk.folder.mkdir(parents=True)
    (runner.desk.folder / "state.json").write_text('{"v":99}')
    runner.inbox.lockkit_alert(lost())
    world.steps(runner, 60)
    assert locks(runner) == ["a"]
    assert (runner.desk.folder / "state.json").read_text() == '{"v":99}'
    assert caplog.text.count("newer lockkit") == 1


@pytest.mark.parametrize("name", ["state.json", "decisions.json", "handed-over.jsonl", "engine.lock"])
def test_a_folder_in_place_of_a_file_stops_no_alert(world, name):
    runner = world.runner()
    (runner.desk.folder / name).mkdir(parents=True)
    runner.inbox.lockkit_alert(lost())
    world.steps(runner, 60)
    assert locks(runner) == ["a"]


def test_a_folder_in_place_of_a_file_costs_no_descriptors(world):
    runner = world.runner()
    path = runner.desk.folder / "decisions.json"
    path.mkdir(parents=True)
    world.steps(runner, 20)
    assert path not in [each.resolve() for each in Path("/proc/self/fd").iterdir()]


def test_a_pipe_in_place_of_a_file_stops_no_alert(world):
    runner = world.runner()
    runner.desk.folder.mkdir(parents=True)
    os.mkfifo(runner.desk.folder / "decisions.json")
    runner.inbox.lockkit_alert(lost())
    world.steps(runner, 60)
    assert locks(runner) == ["a"]


def test_without_its_folder_the_engine_runs_in_memory_and_saves_later(world, caplog):
    runner = world.runner()
    place = runner.desk.folder.parent
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("no folder")
    runner.inbox.lockkit_alert(lost())
    world.steps(runner, 60)
    assert locks(runner) == ["a"]
    assert caplog.text.count("runs in memory alone") == 1
    place.unlink()
    world.steps(runner, 5)
    runner.inbox.lockkit_alert(lost("b"))
    world.steps(runner, 5)
    assert {one.alert.labels["lock"] for one in runner.desk.alerts()} == {"a", "b"}


def test_a_file_that_a_stopped_process_has_locked_holds_nothing_up(world):
    first, second = world.runner(), world.runner()
    world.steps(first, 5)
    with (first.desk.folder / "handed-over.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        first.inbox.lockkit_alert(lost("a"))
        second.inbox.lockkit_alert(lost("b"))
        second.step()
        world.steps(first, 40)
        assert locks(first) == ["a"]
    second.step()
    world.steps(first, 400)
    assert {each.labels["lock"] for one in first.told for each in one.members} == {"a", "b"}


def test_a_process_that_cannot_hand_over_tells_itself(world, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    first, second = world.runner(), world.runner()
    world.steps(first, 5)
    monkeypatch.setattr(inboxes, "hand_over", full)
    second.inbox.lockkit_alert(lost("b"))
    world.steps(second, 60)
    assert locks(second) == ["b"]


def test_a_short_write_is_undone_and_raises(tmp_path, monkeypatch):
    hand_over(tmp_path, [Happening("event.busy")])
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, text: write(handle, text[: len(text) // 2]))
        with pytest.raises(OSError, match="No space left"):
            hand_over(tmp_path, [Happening("event.lost"), Happening("event.lost")])
    hand_over(tmp_path, [Happening("event.granted")])
    assert [one.source for one in handed_over(tmp_path)] == ["event.busy", "event.granted"]


def test_a_line_that_a_crash_has_cut_spoils_no_other(tmp_path):
    (tmp_path / "handed-over.jsonl").write_text('["event.bu')
    hand_over(tmp_path, [Happening("event.lost")])
    assert handed_over(tmp_path) == [Happening("event.lost")]


def test_what_is_put_back_comes_first_and_is_bounded():
    inbox = Inbox()
    first, second = Happening("event.busy"), Happening("event.lost")
    inbox._put(second)
    inbox.put_back([first])
    assert inbox.take() == [first, second]
    inbox._put(second)
    inbox.put_back([first] * 10_000)
    assert (inbox.take(), inbox.dropped) == ([first] * 10_000, 1)


def test_what_comes_in_the_last_second_is_told_by_the_next_process(world):
    runner = world.runner()
    runner._stop.set()  # so that the thread makes no step but the last
    runner.inbox.lockkit_alert(lost())
    runner.start()
    runner.close(60.0)
    assert runner.inbox.take() == []
    other = world.runner()
    world.steps(other, 60)
    assert locks(other) == ["a"]


def test_what_comes_while_the_store_holds_up_the_last_step_is_left_for_the_next_process(world, monkeypatch):
    from threading import Event

    runner = world.runner()
    reached, go_on = Event(), Event()

    def look(*_):
        reached.set()
        go_on.wait(60)

    monkeypatch.setattr(runner, "_look", look)
    runner.start()
    assert reached.wait(60)
    runner.inbox.lockkit_alert(lost())
    runner.close(0.01)
    assert handed_over(runner.desk.folder)[0].source == "alert.lost"
    go_on.set()
    runner._thread.join()


def test_what_cannot_even_be_left_is_counted(world, caplog):
    runner = world.runner()
    runner.desk.folder.mkdir(parents=True)
    with (runner.desk.folder / "handed-over.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        runner.inbox.lockkit_alert(lost())
        runner._leave_the_rest()
    assert runner.dropped == 1
    assert "alerts: 1 are lost" in caplog.text
