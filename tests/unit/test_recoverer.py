"""The recoverer without real processes: what it sees of others, and a store that does not answer."""

from __future__ import annotations

import os
import threading

import pytest

from lockkit.errors import BackendUnavailable, LockkitError, OutcomeUnknown
from lockkit.facts import Event, Owner
from lockkit.observe import journal, survivors
from lockkit.observe.recovery import LOCK, Case, Recoverer, recover


@pytest.mark.parametrize(
    "euid, mine, seen",
    [(0, "root", True), (1000, "ann", True), (1001, "bob", False)],
    ids=["root", "its user", "another"],
)
def test_only_root_and_its_user_see_what_an_owner_left_behind(monkeypatch, euid, mine, seen):
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    monkeypatch.setattr(survivors, "user_name", lambda uid: mine)

    told = survivors.hidden(Owner("ann", "box", 4711))

    assert (told == "") is seen
    assert seen or "only ann and root" in told


@pytest.mark.parametrize("error", [BackendUnavailable("the store is away"), OverflowError("too large")])
def test_recovery_goes_on_after_a_look_that_failed(lockkit_client, monkeypatch, caplog, error):
    recoverer = Recoverer(lockkit_client, act=True)
    rounds = []

    def names(*_args):
        monkeypatch.undo()
        raise error

    def seen(done):
        rounds.append(done)
        recoverer.stop()

    monkeypatch.setattr(lockkit_client, "names", names)
    thread = threading.Thread(target=recoverer.run, args=(0.01, seen))
    thread.start()
    thread.join(30)

    assert [one.acting for one in rounds] == [True]
    assert "recovery: " in caplog.text
    assert str(error) in caplog.text
    assert lockkit_client.inspect(LOCK).claims == ()  # nobody is elected any more


def test_a_recoverer_that_is_not_elected_only_looks(lockkit_client):
    with lockkit_client.hold_elsewhere(LOCK):
        done = recover(lockkit_client, act=True)

    assert (done.acting, "elsewhere" in str(lockkit_client.elsewhere.owner.task)) == (False, True)
    assert done.leader == str(lockkit_client.elsewhere.owner)


@pytest.mark.parametrize("actions", [[10**400], [1e300] * 30, [float("inf")] * 30])
def test_a_record_that_another_program_wrote_does_not_end_recovery(lockkit_client, monkeypatch, actions):
    lockkit_client.put_record(LOCK, {"actions": [0]}, 0)
    record = lockkit_client.record(LOCK)
    monkeypatch.setattr(lockkit_client, "record", lambda _: record._replace(value={"actions": actions}))

    assert Recoverer(lockkit_client, act=True)._count()


def test_an_action_is_counted_while_others_count_theirs(lockkit_client, monkeypatch):
    recoverer = Recoverer(lockkit_client, act=True)
    put = lockkit_client.put_record

    def contended(*args):
        monkeypatch.setattr(lockkit_client, "put_record", put)
        assert Recoverer(lockkit_client.elsewhere)._count()
        return put(*args)  # its version is that of before

    monkeypatch.setattr(lockkit_client, "put_record", contended)

    assert recoverer._count()
    assert len(lockkit_client.record(LOCK).value["actions"]) == 2


@pytest.mark.parametrize("applied", [True, False])
def test_an_action_is_counted_though_the_store_did_not_say_whether_it_was(
    lockkit_client, monkeypatch, applied
):
    put, lost = lockkit_client.put_record, []

    def silent(*what):
        if lost:
            return put(*what)
        lost.append(put(*what) if applied else None)
        raise OutcomeUnknown("the reply is lost")

    monkeypatch.setattr(lockkit_client, "put_record", silent)

    assert Recoverer(lockkit_client)._count()
    assert len(lockkit_client.record(LOCK).value["actions"]) == 1 + applied, "rather twice than not at all"


def test_the_limit_holds_for_all_recoverers_together(lockkit_client):
    limit = lockkit_client.config.recover_limit
    both = [Recoverer(lockkit_client), Recoverer(lockkit_client.elsewhere)]

    counted = [both[number % 2]._count() for number in range(limit + 2)]

    assert counted == [True] * limit + [False] * 2
    lockkit_client.clock.advance(3601.0)
    assert both[0]._count()


@pytest.mark.parametrize(
    "kind, tier, told",
    [
        ("overdue", "warning", ["overdue"]),
        ("silent", "soft", ["overdue", "overdue P2"]),
        ("overdue", "hard", ["overdue", "overdue P1"]),
        ("survivors", "", ["survivors", "survivors P1"]),
        ("gone", "", ["survivors", "survivors P1"]),
        ("card", "", []),
    ],
)
def test_what_a_person_should_look_at_is_told_once_by_event_and_by_alert(
    lockkit_client, monkeypatch, kind, tier, told
):
    recoverer, sent = Recoverer(lockkit_client, act=True), []
    monkeypatch.setattr(recoverer, "_send", sent.append)
    with lockkit_client.lock("x").acquire():
        (claim,) = lockkit_client.inspect("x").claims

    for _ in range(2):
        recoverer._tell(Case(kind, "tell", "x", "why", claim, tier))

    assert [one.kind if isinstance(one, Event) else f"{one.kind} {one.priority}" for one in sent] == told


def test_a_queue_that_cannot_be_read_hides_nothing_else_and_leaves_recovery_incomplete(
    lockkit_client, monkeypatch
):
    with lockkit_client.lock("newer").acquire():
        pass
    folder = lockkit_client.config.state_place().path
    about = {"url": lockkit_client.url, "namespace": lockkit_client.namespace, "claim": "0123456789ab"}
    journal.append(folder, about | {"name": "newer"})
    over = journal.append(folder, about | {"name": "old"})
    inspect = lockkit_client.inspect

    def guarded(name):
        if name == "newer":
            raise LockkitError("a later version of lockkit wrote it")
        return inspect(name)

    monkeypatch.setattr(lockkit_client, "inspect", guarded)

    done = recover(lockkit_client, act=True)

    assert [(one.case.record, one.outcome) for one in done.results] == [(over, "resolved")]
    assert [name for name, _ in done.unread] == ["newer"]
    assert (done.open, done.complete) == ((), False)


def test_the_alert_of_the_limit_says_what_waits_and_where_to_read_of_it(lockkit_client, monkeypatch):
    recoverer, sent = Recoverer(lockkit_client, act=True), []
    monkeypatch.setattr(recoverer, "_send", sent.append)

    recoverer._limited()

    (alert,) = sent
    assert (
        alert.message
        == "recover_limit (20 an hour) is reached; further claims wait; see: lockkit docs recover"
    )
