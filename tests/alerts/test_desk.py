"""The desk: alerts as people see them, and their decisions, beside the engine."""

from __future__ import annotations

import errno
import os
import stat
import threading

import pytest

from lockkit.alerts.desk import Desk, folder_of, write
from lockkit.alerts.engine import Engine
from lockkit.alerts.grouping import Timing
from lockkit.alerts.happenings import of_alert
from lockkit.alerts.shipped import SHIPPED
from lockkit.alerts.state import State
from lockkit.config.config import load
from lockkit.errors import ConfigError
from lockkit.facts import Alert


class Clock:
    at = 10_000.0

    def now(self):
        return self.at

    def wall(self):
        return self.at


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "alerts" / "x", Clock())
    desk.engine = Engine(SHIPPED, Timing(30.0, 300.0, 14_400.0, 60), now=Clock.at)
    return desk


def run(desk, *locks):
    told = desk.engine.step(
        desk._clock.at,
        [of_alert(Alert("lost", "P1", f"{lock} is lost", lock)) for lock in locks],
        None,
        desk.decisions(),
    )
    write(desk.folder / "state.json", desk.engine.state)
    return told


def test_a_state_that_cannot_be_written_whole_leaves_the_old_one(desk, monkeypatch):
    run(desk, "a")
    before = desk.state()
    real, tries = os.write, []

    def full(handle, text):
        tries.append(handle)
        if len(tries) > 1:
            raise OSError(errno.ENOSPC, "no space left")
        return real(handle, text[:10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="no space left"):
        write(desk.folder / "state.json", State())
    assert len(tries) == 2
    assert desk.state() == before
    assert [each.name for each in desk.folder.iterdir()] == ["state.json"]


def test_a_desk_without_an_engine_shows_nothing(desk):
    assert (desk.alerts(), desk.silences(), desk.state()) == ([], [], None)


def test_alerts_are_shown_with_their_state(desk):
    run(desk, "a", "b")
    first, second = desk.alerts()
    assert {first.alert.labels["lock"], second.alert.labels["lock"]} == {"a", "b"}
    assert (first.state, first.hidden, first.told, first.silenced_by) == ("firing", "", False, ())
    desk._clock.at += 30
    assert len(run(desk)) == 1
    assert [one.told for one in desk.alerts()] == [True, True]


def test_an_acknowledgement_counts_in_the_next_step(desk):
    run(desk, "a")
    [one] = desk.alerts()
    desk._clock.at += 5
    member = desk.acknowledge(one.alert.fingerprint, author="ann", comment="on it")
    assert member.acknowledged_by == "ann"
    assert [each.alert.acknowledged_by for each in desk.alerts()] == ["ann"]
    desk._clock.at += 30
    [told] = run(desk)
    assert [each.acknowledged_by for each in told.members] == ["ann"]


def test_nobody_acknowledges_what_is_not_there(desk):
    assert desk.acknowledge("0" * 12, author="ann") is None


def test_a_silence_is_made_shown_and_ended(desk):
    run(desk, "a", "b")
    made = desk.silence(author="ann", seconds=600, comment="known", rule="lost", labels={"lock": "a*"})
    assert desk.silences() == [made]
    assert [one.silenced_by for one in desk.alerts() if one.alert.labels["lock"] == "a"] == [(made.id,)]
    desk._clock.at += 30
    [told] = run(desk)
    assert [each.labels["lock"] for each in told.members] == ["b"]
    assert [one.hidden for one in desk.alerts()] == ["silenced", ""]
    assert desk.end_silence(made.id) == made
    assert desk.end_silence(made.id) is None
    assert desk.silences() == []


def test_a_silence_that_is_over_is_not_shown(desk):
    desk.silence(author="ann", seconds=600, rule="lost")
    desk._clock.at += 600
    assert desk.silences() == []


@pytest.mark.parametrize(
    "arguments, told",
    [
        ({"seconds": 600}, "must say what it is about"),
        ({"seconds": 0, "rule": "lost"}, "lasts more than 0 s"),
        ({"seconds": float("nan"), "rule": "lost"}, "lasts more than 0 s"),
        ({"seconds": 9e9, "rule": "lost"}, "at most 366 days"),
        ({"seconds": 60, "rule": "a\nb"}, "rule must be one line"),
        ({"seconds": 60, "rule": "lost", "comment": "x" * 501}, "comment must be one line of at most 500"),
        ({"seconds": 60, "rule": "lost", "author": " "}, "author must not be empty"),
    ],
)
def test_what_is_no_silence_is_refused(desk, arguments, told):
    with pytest.raises(ConfigError, match=told):
        desk.silence(**{"author": "ann", **arguments})
    assert desk.silences() == []


def test_files_are_for_their_owner_alone(desk):
    run(desk, "a")
    desk.silence(author="ann", seconds=60, rule="lost")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in desk.folder.iterdir()}
    assert modes == {"state.json": 0o600, "decisions.json": 0o600, "decisions.lock": 0o600}
    assert stat.S_IMODE(desk.folder.stat().st_mode) == 0o700


def test_decisions_of_many_at_once_are_all_kept(desk):
    threads = [
        threading.Thread(target=desk.silence, kwargs={"author": f"p{number}", "seconds": 60, "rule": "lost"})
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desk.silences()) == 20


@pytest.mark.parametrize(
    "text, told", [(b"{", "is damaged"), (b'{"v":2}', "of a newer lockkit"), (b'{"at":"x"}', "is damaged")]
)
def test_a_file_that_cannot_be_read_is_told_and_kept(desk, text, told):
    run(desk, "a")
    (desk.folder / "state.json").write_bytes(text)
    with pytest.raises(ConfigError, match=told):
        desk.alerts()
    assert (desk.folder / "state.json").read_bytes() == text


def test_a_field_of_a_later_version_is_no_trouble(desk):
    run(desk)
    (desk.folder / "state.json").write_bytes(b'{"v":1,"at":5,"later":[1]}')
    assert desk.state() == State(at=5.0)


def test_each_store_and_namespace_has_a_folder_and_a_password_makes_no_other(tmp_path):
    def folder(url, namespace="default"):
        return folder_of(
            load(url, environ={}, config="/dev/null", state_dir=str(tmp_path), namespace=namespace)
        )

    assert folder("redis://h/1").parent == tmp_path / "alerts"
    assert len({folder("redis://h/1"), folder("redis://h/2"), folder("redis://h/1", "b")}) == 3
    assert folder("redis://ann:x@h/1") == folder("redis://bob:y@h:6379/1?ttl=9s")
