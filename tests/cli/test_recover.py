"""Recovery with real processes, on every store: what is dead is removed, what may live is left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import lockkit as library
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.quarantine import quarantine, quarantine_faulty, quarantined
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.hooks import hookimpl
from lockkit.notes.members import pool_name
from lockkit.observe import journal, recovery
from lockkit.observe.recovery import Recoverer

HOLDER = """
import os, signal, sys, lockkit, lockkit.gpu
{before}
client = lockkit.connect()
lease = {acquire}
{after}
print(os.getpid(), flush=True)
signal.pause()
"""
A_LOCK = "client.lock(sys.argv[1], ttl={ttl}).acquire(timeout=40)"
A_CARD = "lockkit.gpu.pool(client, simulate=1, host=sys.argv[1], ttl={ttl}).acquire(timeout=40)"
"""The card of a host that has the name."""
ELSEWHERE = """
from lockkit.values import identity
from lockkit.lib import origin
owner = identity.this_process()._replace(host="elsewhere", boot_id="another", pod="trainer-7")
identity._known = (origin.this_origin(), owner)
"""
"""Has the holder look like a process of another host, whose pid says nothing here."""
CRASHES = {
    "cleanup": """
class Plugin:
    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        os.kill(os.getpid(), signal.SIGKILL)
client.plugins.register(Plugin())
lease.release()
""",
    "normal": """
client.driver().backend.release = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
lease.release()
""",
    "emergency": """
from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Unknown
def lost(*_, **__):
    raise Unknown(BackendUnavailable("the reply is lost"))
backend = client.driver().backend
backend.release = lost
backend.emergency_release = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
lease.release()
""",
}
"""Programs that die in each layer of a release, before the request of that layer is sent."""


FAILS = """
from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Unknown
def lost(*_, **__):
    raise Unknown(BackendUnavailable("the reply is lost"))
backend = client.driver().backend
backend.release = backend.emergency_release = backend.abandon = lost
lease.release()
"""
"""Has both requests of a release fail, and all later ones; the process lives on."""


def queue_of(name, acquire):
    """The queue in which a holder of a name, or of the card of the host with that name, stands."""
    if acquire == A_LOCK:
        return name
    return pool_name(f"gpu-sim/{name}", SimulatedProvider(1).snapshot().devices[0].uuid)


def hold(lockkit, name, *, before="", after="", ttl=60, answers=True, acquire=A_LOCK):
    """A Python program that holds a name, or dies while it does."""
    text = HOLDER.format(before=before, after=after, acquire=acquire.format(ttl=ttl))
    program = [sys.executable, "-c", text, name]
    process = subprocess.Popen(
        program,
        env=lockkit.env,
        cwd=lockkit.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lockkit.started.append(process)
    assert bool(process.stdout.readline()) == answers
    return process


def kill(process):
    process.kill()
    process.wait()


def recover(lockkit, *options, code=0, env=None):
    done = lockkit("recover", "--json", *options, env=env)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def cases(document, name):
    return [one for one in document["cases"] if one["name"] == name]


def actions(lockkit, name=None):
    """The records of recovery: each action with its outcome."""
    records = journal.read(lockkit.env["LOCKKIT_STATE_DIR"], file=journal.ACTIONS)
    outcomes = {one["of"]: one["outcome"] for one in records if "of" in one}
    begun = [one | {"outcome": outcomes.get(one["id"])} for one in records if "of" not in one]
    return [one for one in begun if name in (None, one["name"])]


def client_of(lockkit, monkeypatch, **more):
    """A client in this process, on the store of the shell."""
    for key in ("LOCKKIT_URL", "LOCKKIT_STATE_DIR"):
        if key in lockkit.env:
            monkeypatch.setenv(key, lockkit.env[key])
    return library.connect(**more)


def at_once(place):
    """Whether the store itself frees a dead process's lock at once, so there is nothing to recover."""
    return place == "sqlite"


# -- what is dead


def test_the_claim_of_a_killed_holder_is_removed_after_a_dry_run_that_changes_nothing(lockkit, place, name):
    kill(hold(lockkit, name))

    dry = recover(lockkit, code=0 if at_once(place) else 1)

    assert actions(lockkit) == []
    if at_once(place):
        assert cases(dry, name) == []
    else:
        (case,) = cases(dry, name)
        assert (case["action"], case["kind"], case["outcome"], dry["acting"]) == (
            "remove",
            "gone",
            None,
            False,
        )
        assert lockkit("held", name).returncode == 1
        assert len(lockkit.claims(name)) == 1
        (case,) = cases(recover(lockkit, "--yes"), name)
        assert case["outcome"] == "removed"
        (record,) = actions(lockkit)
        assert (record["claim"], record["outcome"]) == (case["claim"]["claim_id"], "removed")
        assert "has ended" in record["why"]
        assert record["seen"]["heartbeat"] == ("unknown" if place == "zookeeper" else "live")
    assert lockkit("run", name, "--no-wait", "--", "true").returncode == 0
    assert cases(recover(lockkit, "--yes"), name) == []


@pytest.mark.parametrize("acquire", [A_LOCK, A_CARD], ids=["lock", "card"])
@pytest.mark.parametrize("layer", CRASHES)
def test_a_crash_in_any_layer_of_a_release_leaves_what_can_be_recovered(lockkit, place, name, layer, acquire):
    died = hold(lockkit, name, after=CRASHES[layer], answers=False, acquire=acquire)
    assert died.wait() == -signal.SIGKILL

    done = recover(lockkit, "--yes")

    words = [name]
    if acquire == A_CARD:
        lockkit.env["LOCKKIT_GPU_HOST"] = name
        words = ["--gpu", "1", "--gpu-sim", "1"]
    outcomes = [one["outcome"] for one in cases(done, queue_of(name, acquire))]
    assert outcomes == ([] if at_once(place) else ["removed"])
    assert lockkit("run", *words, "--no-wait", "--", "true").returncode == 0


def test_a_dead_waiter_is_removed_as_well_and_the_holder_stays(lockkit, place, name):
    holder = hold(lockkit, name)
    waiter = lockkit.start("run", name, "--", "true")
    lockkit.until(lambda: len(lockkit.claims(name)) == 2)
    kill(waiter)

    done = recover(lockkit, "--yes")

    assert {one["claim"]["state"] for one in cases(done, name)} <= {"WAITING"}
    (left,) = lockkit.claims(name)
    assert (left["owner"]["pid"], left["state"]) == (holder.pid, "HELD")


# -- what may live


@pytest.mark.parametrize("acquire", [A_LOCK, A_CARD], ids=["lock", "card"])
def test_a_stopped_holder_is_not_gone(lockkit, place, name, acquire):
    holder, queue = hold(lockkit, name, acquire=acquire), queue_of(name, acquire)
    holder.send_signal(signal.SIGSTOP)
    lockkit.until(lambda: lockkit.claims(queue)[0]["process"] == "stopped")

    assert cases(recover(lockkit, "--yes"), queue) == []
    assert len(lockkit.claims(queue)) == 1


AGES = {"age_warning": "100ms", "age_soft": "200ms", "age_hard": "300ms"}


def aged(lockkit, **ages):
    """A configuration in which every hold is soon too old."""
    text = "".join(f'{key} = "{value}"\n' for key, value in (AGES | ages).items())
    (lockkit.folder / "lockkit.toml").write_text(text)


@pytest.mark.parametrize(
    "elsewhere, acquire",
    [("", A_LOCK), (ELSEWHERE, A_LOCK), ("", A_CARD)],
    ids=["here", "elsewhere", "card"],
)
def test_a_long_task_with_a_heartbeat_keeps_its_lock_however_old_it_is(
    lockkit, place, name, elsewhere, acquire
):
    if elsewhere and place == "sqlite":
        pytest.skip("the embedded store has no other hosts")
    aged(lockkit)
    hold(lockkit, name, before=elsewhere, acquire=acquire)
    time.sleep(0.4)  # the age itself

    name = queue_of(name, acquire)
    (case,) = cases(recover(lockkit, "--yes"), name)

    assert (case["kind"], case["action"], case["tier"], case["outcome"]) == ("overdue", "tell", "hard", None)
    assert len(lockkit.claims(name)) == 1
    assert actions(lockkit) == []


def test_a_lock_of_acquire_that_no_process_keeps_is_left_to_its_ttl(lockkit, place, name):
    aged(lockkit)
    assert lockkit("acquire", name, "--ttl", "1m").returncode == 0
    time.sleep(0.4)  # the age itself

    assert cases(recover(lockkit, "--yes"), name) == []
    assert lockkit("release", name).returncode == 0


SURVIVES = "trap '' TERM HUP INT; setsid sh -c 'echo $$ > survivor; exec sleep 60' & wait"


def test_processes_that_outlive_a_killed_run_keep_its_lock_until_they_end(lockkit, place, name, alive):
    wrapper = lockkit.start("run", name, "--", "sh", "-c", SURVIVES)
    survivor = int(lockkit.file("survivor"))
    kill(wrapper)
    try:
        (case,) = cases(recover(lockkit, "--yes"), name)

        assert (case["kind"], case["action"]) == ("survivors", "tell")
        assert f"pid {survivor} (sleep)" in case["why"]
        assert len(lockkit.claims(name)) == 1
    finally:
        os.kill(survivor, signal.SIGKILL)
    lockkit.until(lambda: not alive(survivor))
    recover(lockkit, "--yes")
    assert lockkit("run", name, "--no-wait", "--", "true").returncode == 0


# -- what is silent


@pytest.fixture
def silent(lockkit, place, name):
    """A stopped holder that looks like one of another host, and of which two heartbeats are missing."""
    if place in ("sqlite", "zookeeper"):
        pytest.skip("its holders are seen by their pulse, or it does not tell when it last heard of them")
    aged(lockkit)
    holder = hold(lockkit, name, before=ELSEWHERE, ttl=9)
    holder.send_signal(signal.SIGSTOP)
    return holder


def found(look, name):
    """The first look in which a case may be acted on."""
    end = time.monotonic() + 40.0
    while time.monotonic() < end:
        done = look()
        if any(one.case.name == name and one.case.action == "evict" for one in done.results):
            return next(one for one in done.results if one.case.name == name)
        time.sleep(0.05)
    raise AssertionError("it was never silent")


def test_a_hold_that_is_not_renewed_is_evicted_with_the_mark(lockkit, place, name, silent, monkeypatch):
    monkeypatch.chdir(lockkit.folder)
    with client_of(lockkit, monkeypatch, namespace=lockkit.env["LOCKKIT_NAMESPACE"]) as client:
        result = found(Recoverer(client, act=True, between=0.1).once, name)

    assert (result.case.kind, result.outcome) == ("silent", "evicted")
    (record,) = actions(lockkit, name)
    assert record["action"] == "evict"


def test_a_heartbeat_that_comes_between_the_looks_saves_the_hold(lockkit, place, name, silent, monkeypatch):
    monkeypatch.chdir(lockkit.folder)
    with client_of(lockkit, monkeypatch, namespace=lockkit.env["LOCKKIT_NAMESPACE"]) as client:
        recoverer = Recoverer(client, act=True)
        before = client.inspect(name).claims[0].renewed

        def between(cases):
            if any(case.action == "evict" for case in cases):
                silent.send_signal(signal.SIGCONT)
                lockkit.until(lambda: client.inspect(name).claims[0].renewed > before + 1)

        monkeypatch.setattr(recoverer, "_wait_between_looks", between)

        assert found(recoverer.once, name).outcome == "changed"
        assert client.inspect(name).claims[0].state == "HELD"


# -- exactly what was seen


class Meddling:
    """A client on which another program takes the lock anew just before the eviction."""

    def __init__(self, client, lockkit, name):
        self._client, self._lockkit, self._name = client, lockkit, name

    def __getattr__(self, key):
        return getattr(self._client, key)

    def evict(self, name, claim_id, **more):
        self._client.evict(name, claim_id, reason="somebody else was faster", now=True)
        hold(self._lockkit, name)
        return self._client.evict(name, claim_id, **more)


def by_name(self, case):
    """The mutant: whoever holds the lock by now is evicted."""
    client = self._client
    if isinstance(client, Meddling):
        client.evict(case.name, case.claim_id, reason="x", now=True)
    client._client.evict(case.name, client.inspect(case.name).claims[0].claim_id, reason="x", now=True)
    return "removed"


@pytest.mark.parametrize("mutant", [False, True], ids=["by claim", "by name"])
def test_only_the_claim_that_was_seen_is_removed(lockkit, place, name, monkeypatch, mutant):
    if at_once(place):
        pytest.skip("the store itself removes the claim of a dead process")
    kill(hold(lockkit, name))
    if mutant:
        monkeypatch.setattr(Recoverer, "_do", by_name)
    with client_of(lockkit, monkeypatch, namespace=lockkit.env["LOCKKIT_NAMESPACE"]) as client:
        (result,) = recovery.recover(Meddling(client, lockkit, name), act=True).results
        left = [one.state for one in client.inspect(name).claims]

    assert (result.outcome, left) == (("removed", []) if mutant else ("absent", ["HELD"]))


def test_a_claim_that_is_another_one_by_the_second_look_is_left_alone(lockkit, place, name, monkeypatch):
    if at_once(place):
        pytest.skip("the store itself removes the claim of a dead process")
    kill(hold(lockkit, name))
    with client_of(lockkit, monkeypatch, namespace=lockkit.env["LOCKKIT_NAMESPACE"]) as client:
        recoverer = Recoverer(client, act=True)

        def between(cases):
            (case,) = cases
            client.evict(name, case.claim_id, reason="somebody else was faster", now=True)
            hold(lockkit, name)

        monkeypatch.setattr(recoverer, "_wait_between_looks", between)
        (result,) = recoverer.once().results

        assert result.outcome == "changed"
        assert [one.state for one in client.inspect(name).claims] == ["HELD"]
    assert actions(lockkit) == []


def test_of_two_recoverers_that_race_one_acts_on_each_claim(lockkit, place, name):
    dead = [hold(lockkit, f"{name}/{number}") for number in range(4)]
    for process in dead:
        kill(process)

    racers = [lockkit.start("recover", "--yes", "--json") for _ in range(2)]
    codes = []
    for racer in racers:
        racer.communicate(timeout=60)
        codes.append(racer.returncode)

    assert 0 in codes
    assert set(codes) <= {0, 75}
    done = [one["name"] for one in actions(lockkit) if one["outcome"] == "removed"]
    assert len(done) == len(set(done)) == (0 if at_once(place) else 4)
    assert {one["outcome"] for one in actions(lockkit)} <= {"removed", "absent"}


RECOVERS = """
import lockkit
from lockkit.observe.recovery import recover
with lockkit.connect() as client:
    print(sorted(one.outcome for one in recover(client, act=True, between=0.3).results), flush=True)
"""


def test_of_two_recoverers_that_race_one_gives_back_each_card(lockkit, place, monkeypatch):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "4"
    cards = [card.uuid for card in SimulatedProvider(4).snapshot().devices]
    with client_of(lockkit, monkeypatch, namespace=lockkit.env["LOCKKIT_NAMESPACE"]) as client:
        for card in cards[:2]:
            quarantine_faulty(client, simulated(os.uname().nodename), card, "Xid 79", client.owner, cards)
        quarantine(client, simulated(os.uname().nodename), cards[2], "being replaced", client.owner)
        program = [sys.executable, "-c", RECOVERS]
        racers = [
            subprocess.Popen(program, env=lockkit.env, cwd=lockkit.folder, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        lockkit.started += racers
        told = [racer.communicate(timeout=60)[0] for racer in racers]

        assert quarantined(client, simulated(os.uname().nodename)).keys() == {cards[2]}
    assert [racer.returncode for racer in racers] == [0, 0], told
    cleared = [one["name"] for one in actions(lockkit) if one["outcome"] == "cleared"]
    assert len(cleared) == len(set(cleared)) == 2
    assert {one["outcome"] for one in actions(lockkit)} <= {"cleared", "absent"}


def test_a_recoverer_that_stays_elected_keeps_others_from_acting_until_it_ends(lockkit, place, name):
    leader = lockkit.start("recover", "--yes", "--every", "100ms")
    lockkit.until(lambda: lockkit.claims("@recover"))
    kill(hold(lockkit, name))
    lockkit.until(lambda: at_once(place) or actions(lockkit, name))

    refused = lockkit("recover", "--yes")

    assert refused.returncode == 75
    assert "another recoverer is at work: " in refused.stderr
    leader.send_signal(signal.SIGTERM)
    assert leader.wait(timeout=40) == 0
    assert lockkit("recover", "--yes").returncode == 0


def test_what_this_host_proves_dead_is_removed_while_a_recoverer_of_another_host_is_elected(
    lockkit, place, name
):
    if at_once(place):
        pytest.skip("the store itself removes the claim of a dead process")
    hold(lockkit, "@recover", before=ELSEWHERE)
    kill(hold(lockkit, name))

    done = recover(lockkit, "--yes", code=75)

    assert [one["outcome"] for one in cases(done, name)] == ["removed"]
    assert lockkit.claims(name) == []


def test_when_the_elected_recoverer_dies_another_one_takes_over(lockkit):
    first = lockkit.start("recover", "--yes", "--every", "100ms")
    lockkit.until(lambda: lockkit.claims("@recover"))
    second = lockkit.start("recover", "--yes", "--every", "100ms")
    assert "another recoverer acts: " in second.stdout.readline()

    kill(first)

    assert second.stdout.readline() == "nothing to recover\n"
    assert [one["owner"]["pid"] for one in lockkit.claims("@recover")] == [second.pid]


def test_an_elected_recoverer_that_was_killed_is_the_first_to_be_removed(lockkit, place, name):
    leader = lockkit.start("recover", "--yes", "--every", "1m")
    lockkit.until(lambda: lockkit.claims("@recover"))
    kill(hold(lockkit, name))
    kill(leader)

    done = recover(lockkit, "--yes")

    assert done["acting"]
    assert {one["name"] for one in actions(lockkit)} == (set() if at_once(place) else {"@recover", name})


def test_no_more_than_the_limit_are_removed_in_an_hour(lockkit, place, name):
    if at_once(place):
        pytest.skip("the store itself removes the claim of a dead process")
    (lockkit.folder / "lockkit.toml").write_text("recover_limit = 1\n")
    for number in range(2):
        kill(hold(lockkit, f"{name}/{number}"))

    first = recover(lockkit, "--yes", code=1)
    second = recover(lockkit, "--yes", code=1)

    assert sorted(one["outcome"] for one in first["cases"]) == ["limited", "removed"]
    assert [one["outcome"] for one in second["cases"]] == ["limited"]
    assert len(actions(lockkit)) == 1


# -- oracles


class Oracle:
    def __init__(self, answer):
        self.answer, self.asked = answer, []

    @hookimpl
    def lockkit_owner_alive(self, owner):
        self.asked.append(owner)
        return self.answer


@pytest.mark.parametrize(
    "answers, outcome",
    [([False], "removed"), ([False, None], "removed"), ([False, True], None), ([None], None)],
)
def test_an_oracle_proves_the_death_of_an_owner_elsewhere_unless_another_one_sees_it(
    lockkit, place, name, monkeypatch, answers, outcome
):
    holder = hold(lockkit, name, before=ELSEWHERE, ttl=9)
    kill(holder)
    oracles = [Oracle(answer) for answer in answers]
    if at_once(place):
        pytest.skip("the store itself removes the claim of a dead process")
    with client_of(
        lockkit, monkeypatch, plugins=oracles, namespace=lockkit.env["LOCKKIT_NAMESPACE"]
    ) as client:
        recoverer = Recoverer(client, act=True)
        lockkit.until(lambda: recoverer.once() and (oracles[0].asked or not client.inspect(name).claims))
        left = client.inspect(name).claims

    assert {owner.pod for oracle in oracles for owner in oracle.asked} == {"trainer-7"}
    assert [one["outcome"] for one in actions(lockkit)] == ([] if outcome is None else [outcome])
    assert len(left) == (outcome is None)


# -- failed releases, settings, and what is told


def test_a_failed_release_is_resolved_once_its_claim_has_gone(lockkit, place, name, monkeypatch):
    with client_of(lockkit, monkeypatch, namespace=lockkit.env["LOCKKIT_NAMESPACE"]) as client:
        with client.lock(name).acquire() as lease:
            about = {"url": client.url, "namespace": client.namespace, "name": name}
            folder = client.config.state_place().path
            mine = journal.append(folder, about | {"claim": lease.claim_id})
            other = journal.append(folder, about | {"claim": lease.claim_id, "namespace": "another"})
            old = journal.append(folder, {"name": name, "claim": lease.claim_id})
            assert cases(recover(lockkit, "--yes"), name) == []

        (case,) = cases(recover(lockkit, "--yes"), name)

    assert (case["kind"], case["outcome"], case["seen"]["failure"]["id"]) == ("failure", "resolved", mine)
    unresolved = {one["id"] for one in lockkit.json("failures", "list")["failures"]}
    assert unresolved == {other, old}


def test_a_release_that_failed_for_good_is_replayed_after_the_death_of_its_process(lockkit, place, name):
    holder = hold(lockkit, name, after=FAILS)
    (failure,) = lockkit.json("failures", "list")["failures"]
    assert (failure["name"], len(lockkit.claims(name))) == (name, 1)

    kill(holder)
    done = [case for _ in range(2) for case in cases(recover(lockkit, "--yes"), name)]

    outcomes = [(case["kind"], case["outcome"]) for case in done]
    assert outcomes == [*([] if at_once(place) else [("gone", "removed")]), ("failure", "resolved")]
    assert lockkit.json("failures", "list")["failures"] == []
    assert lockkit("run", name, "--no-wait", "--", "true").returncode == 0


def test_the_ages_are_read_again_when_the_file_changes(lockkit, monkeypatch, tmp_path):
    lockkit.env["LOCKKIT_URL"] = f"sqlite:{lockkit.folder}/locks.db"
    monkeypatch.chdir(lockkit.folder)
    (lockkit.folder / "lockkit.toml").write_text("")
    with client_of(lockkit, monkeypatch) as client, client.lock("backup").acquire():
        recoverer = Recoverer(client, act=True)
        assert recoverer.once().results == ()
        aged(lockkit)
        lockkit.until(lambda: [one.case.tier for one in recoverer.once().results] == ["hard"])
        # The ages must rise: the old ones stay.
        (lockkit.folder / "lockkit.toml").write_text('age_soft = "1ms"')
        assert [one.case.tier for one in recoverer.once().results] == ["hard"]


def test_events_and_alerts_tell_once_of_each_case(lockkit, monkeypatch):
    lockkit.env["LOCKKIT_URL"] = f"sqlite:{lockkit.folder}/locks.db"
    monkeypatch.chdir(lockkit.folder)
    aged(lockkit)

    told_of = []

    class Listener:
        @hookimpl
        def lockkit_event(self, event):
            told_of.append((event.kind, event.name, event.data.get("tier")))

        @hookimpl
        def lockkit_alert(self, alert):
            told_of.append((alert.kind, alert.name, alert.priority))

    with client_of(lockkit, monkeypatch, plugins=[Listener()]) as client, client.lock("backup").acquire():
        looking = Recoverer(client, act=False)
        lockkit.until(lambda: [one.case.tier for one in looking.once().results] == ["hard"])
        recoverer = Recoverer(client, act=True)
        recoverer.once()
        recoverer.once()
        client.driver().dispatcher.flush(5.0)

        told = [one for one in told_of if one[0] == "overdue"]
    assert sorted(told) == [("overdue", "backup", "P1"), ("overdue", "backup", "hard")]


def test_a_check_of_somebody_else_is_one_function_more(lockkit, monkeypatch):
    lockkit.env["LOCKKIT_URL"] = f"sqlite:{lockkit.folder}/locks.db"
    fixed = []

    def cards(look):
        if not fixed:
            yield recovery.Case(
                "card", "fix", "gpu/box/1", "it is well again", fix=lambda: fixed.append(1) or "cleared"
            )

    monkeypatch.setattr(recovery, "CHECKS", [*recovery.CHECKS, cards])
    with client_of(lockkit, monkeypatch) as client:
        assert [one.case.kind for one in recovery.recover(client).open] == ["card"]
        (result,) = recovery.recover(client, act=True).results
        assert (result.outcome, recovery.recover(client, act=True).results) == ("cleared", ())
    (record,) = actions(lockkit)
    assert (record["action"], record["outcome"]) == ("fix", "cleared")


def test_people_are_told_in_sentences(lockkit):
    assert lockkit("recover").stdout == "nothing to recover\n"
    aged(lockkit)
    lockkit.holder("backup")
    time.sleep(0.4)  # the age itself

    told = lockkit("recover").stdout

    assert told.startswith("left alone: 'backup' (claim ")
    assert "its owner may well be at work" in told


def test_a_card_that_is_well_again_is_told_in_a_sentence(lockkit, monkeypatch):
    lockkit.env |= {"LOCKKIT_GPU_SIMULATE": "1", "LOCKKIT_URL": f"sqlite:{lockkit.folder}/locks.db"}
    (card,) = SimulatedProvider(1).snapshot().devices
    with client_of(lockkit, monkeypatch) as client:
        quarantine_faulty(
            client, simulated(os.uname().nodename), card.uuid, "Xid 79", client.owner, [card.uuid]
        )

    told = lockkit("recover")

    assert told.returncode == 1
    assert told.stdout.startswith("would fix '@pool/gpu")
    assert (
        ": GPU 0 is well again: the driver reports no fault, and nothing uses it. It was found faulty by"
        in told.stdout
    )
