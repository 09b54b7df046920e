"""The runner: what happens in processes and what a store shows reaches sinks, from one of them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat

import pytest

import lockkit
from lockkit.alerts.desk import Desk, folder_of
from lockkit.alerts.happenings import Happening, Look
from lockkit.alerts.inbox import Inbox, hand_over, handed_over
from lockkit.alerts.looking import look_at
from lockkit.alerts.notification import Notification
from lockkit.alerts.running import LOCK, Runner
from lockkit.config import config as configuration
from lockkit.facts import Alert, Event
from lockkit.values.durations import utc


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.at = 1_000_000.0

    def now(self):
        return self.at

    def wall(self):
        return self.at


class World:
    def __init__(self, tmp_path):
        self.file = tmp_path / "lockkit.toml"
        self.file.write_text("")
        self.store = f"sqlite:{tmp_path}/locks.db"
        self.state_dir = str(tmp_path / "state")
        self.clock = Clock()
        self.open = []

    def runner(self, *sinks, channels=("pager",)):
        inbox = Inbox()
        config = configuration.load(self.store, config=self.file, environ={}, state_dir=self.state_dir)
        client = lockkit.connect(config=config, plugins=[inbox])
        told = []
        runner = Runner(client, inbox, sinks, self.clock, channels=dict.fromkeys(channels, told.append))
        runner.client, runner.inbox, runner.told = client, inbox, told
        self.open.append(runner)
        return runner

    def steps(self, runner, seconds, every=5.0):
        for _ in range(int(seconds / every)):
            self.clock.at += every
            runner.step()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    for runner in world.open:
        runner._resign()
        runner._passing_on.close()
        runner.client.close()


def lost(lock="a"):
    return Alert("lost", "P1", f"{lock} is lost", lock, "c0ffee")


def test_an_alert_of_the_hook_reaches_a_sink(world):
    runner = world.runner()
    runner.client.driver().dispatcher.tell(lost())
    runner.client.driver().dispatcher.flush(10.0)
    world.steps(runner, 40)
    [told] = runner.told
    assert (told.reason, told.members[0].text) == ("first", "a is lost")
    assert told.members[0].labels == {"lock": "a", "namespace": "default"}


def test_events_of_real_locks_are_counted(world):
    runner = world.runner()
    with runner.client.lock("a").acquire():
        for _ in range(20):
            with pytest.raises(lockkit.AcquireTimeout):
                lockkit_other(world, runner).acquire(timeout=0.01)
    for one in world.open:
        one.client.driver().dispatcher.flush(10.0)
    world.steps(runner, 5)
    assert "timeouts" in runner._engine.state.windows


def lockkit_other(world, runner):
    from threading import Thread  # another thread, for one thread cannot wait for itself

    class Other:
        def acquire(self, timeout):
            raised = []

            def run():
                try:
                    runner.client.lock("a").acquire(timeout=timeout)
                except lockkit.AcquireTimeout as error:
                    raised.append(error)

            thread = Thread(target=run)
            thread.start()
            thread.join()
            raise raised[0]

    return Other()


def test_of_two_processes_one_runs_the_engine_and_gets_what_the_other_hears(world):
    first, second = world.runner(), world.runner()
    world.steps(first, 5)
    second.inbox.lockkit_alert(lost("b"))
    assert second.step() == []
    assert (first.running, second.running) == (True, False)
    world.steps(first, 40)
    assert [one.members[0].labels["lock"] for one in first.told] == ["b"]
    assert second.told == []


@pytest.mark.parametrize("channels", [(), ("mail",), ("mail", "pager")], ids=["none", "another", "both"])
def test_what_the_engine_tells_reaches_the_channels_of_all_processes_each_once(world, channels):
    engine, other, same = world.runner(channels=channels), world.runner(), world.runner()
    world.steps(engine, 5)
    for each in (other, same):
        each.step()
        each.inbox.lockkit_alert(lost(f"of-{id(each)}"))
        each.step()
    world.steps(engine, 40)
    for each in (other, same, other):
        each.step()
    assert [one.running for one in (engine, other, same)] == [True, False, False]
    assert [len(one.members) for one in engine.told] == [2] * len(channels)
    assert [len(one.members) for one in other.told] == ([] if "pager" in channels else [2])
    assert same.told == []


def test_an_engine_is_elected_for_the_channels_of_others_while_they_live(world):
    engine, other = world.runner(channels=()), world.runner()
    world.steps(engine, 5)
    other.step()
    assert engine._elected()
    assert engine.client.inspect(LOCK).claims
    other._passing_on.close()
    assert engine._elected()
    assert not engine.client.inspect(LOCK).claims


def test_what_is_left_for_a_process_that_ends_is_told_by_the_next_one_with_the_channel(world):
    engine, other = world.runner(channels=()), world.runner()
    other._passing_on.take(print)
    engine.inbox.lockkit_alert(lost())
    world.steps(engine, 40)
    other._passing_on.close()
    heir = world.runner()
    heir.step()
    assert [one.members[0].text for one in heir.told] == ["a is lost"]
    heir.step()
    assert len(heir.told) == 1


def test_a_damaged_notification_is_named_and_the_next_one_is_told(world, caplog):
    engine, other = world.runner(channels=()), world.runner()
    other.step()
    engine.step()
    for text in ("{", "[" * 100_000, "[]", '{"group": 3}'):
        engine._passing_on.leave(Notification("lost", "first", "P1", (), 1.0))
        (*_, left) = sorted(engine.desk.folder.glob("channels/*/*.json"))
        left.write_text(text)
    engine._passing_on.leave(Notification("lost", "first", "P1", (), 1.0))
    other.step()
    assert [one.group for one in other.told] == ["lost"]
    assert caplog.text.count("a notification was lost") == 4
    assert list(engine.desk.folder.glob("channels/*/*")) == []


def test_what_cannot_be_left_for_another_process_is_left_later(world, caplog, monkeypatch):
    engine, other = world.runner(channels=()), world.runner()
    other.step()
    engine.step()
    full = OSError(errno.ENOSPC, "no space")
    other.running or other._passing_on.take(print)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(full))
        engine._passing_on.leave(Notification("lost", "first", "P1", (), 1.0))
    assert "not passed on to another process: [Errno 28] no space" in caplog.text
    assert list(engine.desk.folder.glob("channels/*/*")) == []
    engine.step()
    other.step()
    assert [one.group for one in other.told] == ["lost"]


def test_the_other_takes_over_with_the_state(world):
    first, second = world.runner(), world.runner()
    first.inbox.lockkit_alert(lost())
    world.steps(first, 40)
    assert len(first.told) == 1
    first._resign()
    world.steps(second, 100)
    assert (second.running, second.told) == (True, [])
    assert [one.told for one in second.desk.alerts()] == [True]


def test_one_of_two_engines_looks_at_the_locks(world):
    runner = world.runner()
    world.steps(runner, 5)
    assert [claim.reason for claim in runner.client.inspect(LOCK).claims] == ["alerts"]
    runner._resign()
    with runner.client.lock(LOCK).acquire():
        other = world.runner()
        world.steps(other, 5)
        assert other._lease is None
        assert other._look() == Look(elected=False)


def test_an_engine_without_channels_looks_for_itself_and_keeps_no_other_from_looking(world):
    alone = world.runner(channels=())
    world.steps(alone, 5)
    assert alone._look().elected
    assert alone.client.inspect(LOCK).claims == ()
    with alone.client.lock(LOCK).acquire():
        assert alone._look().elected


def refused(*_, **__):
    raise lockkit.PermissionDenied("this login may only look")


def test_in_a_drained_namespace_the_engine_looks_and_says_once_that_it_is_not_elected(world, caplog):
    runner = world.runner()
    runner.client.drain()
    world.steps(runner, 100)
    assert runner._look().elected
    assert len([one for one in caplog.records if "looks without the lock @alerts" in one.message]) == 1


def test_in_a_drained_namespace_the_engine_that_was_elected_before_looks_alone(world):
    runner = world.runner()
    with runner.client.lock(LOCK).acquire():
        runner.client.drain()
        assert not world.runner()._look().elected
    assert world.runner()._look().elected


def test_a_login_that_may_only_look_is_told_what_looks_show(world, caplog, monkeypatch):
    world.file.write_text('age_warning = "1ms"\nage_soft = "2ms"\nage_hard = "3ms"\n')
    runner, other = world.runner(), world.runner()
    monkeypatch.setattr(type(runner.client.lock(LOCK)), "try_acquire", refused)
    with other.client.lock("job").acquire():
        world.steps(runner, 100)
    assert [(one.group, one.members[0].labels["lock"]) for one in runner.told] == [("old_hold", "job")]
    assert len([one for one in caplog.records if "this login may only look" in one.message]) == 1


def test_a_store_that_does_not_answer_is_told(world, monkeypatch):
    runner = world.runner()
    world.steps(runner, 40)
    refuse = lockkit.BackendUnavailable("the store is down")
    monkeypatch.setattr(runner.client, "names", lambda: (_ for _ in ()).throw(refuse))
    runner.inbox.lockkit_alert(lost())
    runner._look_at = 0.0
    world.steps(runner, 300)
    assert [(one.group, one.severity) for one in runner.told] == [("store_unreachable", "P0")]


def test_rules_are_read_again_when_the_file_changes_and_a_wrong_file_changes_nothing(world, caplog):
    runner = world.runner()
    world.steps(runner, 5)
    world.file.write_text("[alerts.rules.lost]\nenabled = false")
    world.steps(runner, 60)
    assert "lost" not in runner._engine.rules
    world.file.write_text("[alerts.rules.lost]\nabove = 'x'")
    with caplog.at_level(logging.WARNING, "lockkit.alerts"):
        world.steps(runner, 60)
    assert "alerts go on with their old rules" in caplog.text
    assert "lost" not in runner._engine.rules


def test_a_sink_that_raises_harms_no_other(world, caplog):
    def broken(_):
        raise RuntimeError("no")

    runner = world.runner(broken)
    runner.inbox.lockkit_alert(lost())
    world.steps(runner, 40)
    assert len(runner.told) == 1
    assert "a sink failed: RuntimeError('no')" in caplog.text


def test_the_state_is_saved_after_the_notification_is_handed_over(world):
    seen = []
    runner = world.runner(lambda _: seen.append([one.told for one in runner.desk.alerts()]))
    runner.inbox.lockkit_alert(lost())
    world.steps(runner, 40)
    assert seen == [[False]], "so a crash in between repeats it, and loses nothing"
    assert [one.told for one in runner.desk.alerts()] == [True]


def test_files_are_for_their_owner_alone(world):
    first, second = world.runner(), world.runner()
    world.steps(first, 5)
    second.inbox.lockkit_alert(lost())
    second.step()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in first.desk.folder.rglob("*")}
    assert modes == {
        **dict.fromkeys(("engine.lock", "state.json", "handed-over.jsonl", "pager.lock"), 0o600),
        **dict.fromkeys(("channels", "pager"), 0o700),
    }


def test_a_thread_runs_and_ends(world):
    runner = world.runner()
    runner.start()
    while runner.desk.state() is None:
        runner._stop.wait(0.01)
    runner.close()
    assert not runner._thread.is_alive()
    assert not runner.running


def test_an_inbox_that_is_full_drops_and_counts():
    inbox = Inbox()
    for _ in range(10_003):
        inbox.lockkit_event(Event("busy", "a"))
    assert (len(inbox.take()), inbox.dropped, inbox.take()) == (10_000, 3, [])


def test_what_is_handed_over_comes_back_whole(tmp_path):
    ones = [Happening("alert.lost", {"lock": "ä"}, "x", 2, "P0"), Happening("event.busy")]
    assert handed_over(tmp_path) == []
    assert hand_over(tmp_path, ones[:1]) == 0
    assert hand_over(tmp_path, ones[1:]) == 0
    assert handed_over(tmp_path) == ones
    assert handed_over(tmp_path) == []


@pytest.mark.parametrize("line", [b"{", b"[]", b'["a",{},"m",1,"P9"]', b'["a",{"x":1},"m",1,null]', b"\xff"])
def test_a_damaged_line_is_left_out(tmp_path, line):
    hand_over(tmp_path, [Happening("event.busy")])
    with (tmp_path / "handed-over.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert handed_over(tmp_path) == [Happening("event.busy")]


def test_what_does_not_fit_into_the_file_is_counted(tmp_path):
    large = [Happening("event.busy", message="x" * 500)] * 20_000
    dropped = hand_over(tmp_path, large)
    assert 0 < dropped < 20_000
    assert hand_over(tmp_path, large[:3]) == 3
    assert len(handed_over(tmp_path)) == 20_000 - dropped


def test_a_look_sees_a_dead_owner_and_an_old_hold(world):
    runner = world.runner()
    client = runner.client
    with client.lock("a").acquire():
        config = client.config._replace(age_hard=0.0)
        seen = look_at(client, config)
        assert seen.held == {"a"}
        (old,) = seen.subjects["old"]
        assert old.labels["lock"] == "a"
        assert f"(since {utc(client.inspect('a').holders[0].since)}) by " in old.message
        assert "zombie" not in seen.subjects
        assert look_at(client, client.config).subjects == {}
        assert look_at(client, config, besides=("a",)).held == frozenset()


def test_looks_at_more_locks_than_one_reads_read_each_in_turn_and_those_of_jobs_always(world, monkeypatch):
    monkeypatch.setattr("lockkit.alerts.looking.MOST", 2)
    runner = world.runner()
    runner._elected()
    seen = []
    with contextlib.ExitStack() as held:
        for name in "abcde":
            held.enter_context(runner.client.lock(name).acquire())
        for _ in range(5):
            look = runner._look(["c"])
            assert set("abcde") == look.held | set(look.unread), "each is read, or said not to be"
            seen.append("".join(sorted(look.held)))
    assert seen == ["ac", "bc", "cd", "ce", "ac"]


def test_a_lock_that_cannot_be_read_is_said_to_be_unread(world, monkeypatch):
    runner = world.runner()
    runner._elected()
    read = runner.client.inspect

    def inspect(name):
        if name == "a":
            raise lockkit.PermissionDenied("not for you")
        return read(name)

    monkeypatch.setattr(runner.client, "inspect", inspect)
    with runner.client.lock("a").acquire(), runner.client.lock("b").acquire():
        for _ in range(2):
            look = runner._look()
            assert (look.held, look.unread) == ({"b"}, ("a",))


def test_a_look_sees_the_claim_of_an_owner_that_has_died(world, tmp_path, monkeypatch):
    runner = world.runner()
    client = runner.client
    with client.lock("a").acquire():
        whole = client.inspect("a")
        dead = whole.claims[0]._replace(alive=False, process="gone", evidence="pid 7 has ended")
        monkeypatch.setattr(client, "inspect", lambda _: whole._replace(claims=(dead,)))
        [zombie] = look_at(client, client.config).subjects["zombie"]
    assert (zombie.labels["lock"], zombie.message) == ("a", "pid 7 has ended")


def test_the_desk_of_another_process_is_the_same(world):
    runner = world.runner()
    runner.inbox.lockkit_alert(lost())
    world.steps(runner, 5)
    assert os.fspath(folder_of(runner.client.config)) == os.fspath(runner.desk.folder)
    [one] = Desk(folder_of(runner.client.config)).alerts()
    assert one.alert.rule == "lost"
