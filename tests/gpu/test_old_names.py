"""``gpu_lock`` and ``release_lock`` on simulated cards: the promises that tasks of the old lock rely on."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

import lockkit
import lockkit.aio
import lockkit.gpu
import lockkit.gpu.aio
from lockkit.errors import AcquireTimeout, BackendUnavailable, ConfigError, DeadlockDetected, LeaseLost
from lockkit.facts import Owner
from lockkit.gpu import gpu_lock, release_lock
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.quarantine import clear, quarantine
from lockkit.gpu.receipts import last
from lockkit.gpu.simulated import STATE_FILE, SimulatedProvider
from lockkit.hooks import hookimpl
from lockkit.notes.members import pool_name
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from support.servers.redis import RedisServer

HOST = os.uname().nodename
SIMULATED = simulated(HOST)
CARDS = [card.uuid for card in SimulatedProvider(4).snapshot().devices]


@pytest.fixture(scope="module")
def redis():
    pytest.importorskip("redis")
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def url(request, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LOCKKIT_GPU_SIMULATE", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/locks.db"
    return request.getfixturevalue("redis").url()


@pytest.fixture
def namespace():
    return os.urandom(6).hex()


class Seen:
    """A plugin that keeps the releases it sees."""

    def __init__(self):
        self.reasons = []

    @hookimpl
    def lockkit_event(self, event):
        if event.kind == "released":
            self.reasons.append(event.reason)


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def client(url, namespace, seen):
    with lockkit.connect(url, namespace=namespace, plugins=[seen]) as client:
        yield client


@pytest.fixture
def other(url, namespace):
    with lockkit.connect(url, namespace=namespace) as client:
        yield client


def holders(client, card=CARDS[0]):
    return client.inspect(pool_name(f"gpu-sim/{HOST}", card)).holders


def violations(client):
    return client.stats()["ownership_violations"]


def run(call):
    """Run a function, or a coroutine function in an event loop of its own."""
    if asyncio.iscoroutinefunction(call):
        return asyncio.run(call())
    return call()


def functions(decorate, body):
    """The function, and the coroutine function, that do the same."""

    @decorate
    def task(*args):
        return body(*args)

    plain = task

    @decorate
    async def task(*args):
        return body(*args)

    return {"function": plain, "coroutine": task}


@pytest.fixture(params=["function", "coroutine"])
def of_kind(request):
    return lambda decorate, body: functions(decorate, body)[request.param]


# -- the card of a key


def test_a_task_holds_the_card_of_its_key_by_uuid_with_its_name_as_the_reason(client, of_kind):
    task = of_kind(gpu_lock("gpu_lock:1", client=client), lambda: holders(client, CARDS[1]))

    (holder,) = run(task)
    assert (holder.weight, holder.reason) == (holder.capacity, "task")
    assert not holders(client, CARDS[1])
    assert not holders(client, CARDS[0])


def test_the_default_key_is_that_of_the_first_card(client):
    assert len(gpu_lock(client=client)(lambda: holders(client))()) == 1


@pytest.mark.parametrize("key", ["gpu_lock:7", "gpu_lock:x", "gpu_lock:GPU-none", "gpu_lock:-1"])
def test_a_key_of_no_card_of_this_host_is_refused_and_the_body_does_not_run(client, key):
    ran = []
    task = gpu_lock(key, client=client)(lambda: ran.append(1))

    with pytest.raises(ConfigError, match="there is no GPU"):
        task()
    assert ran == []


@pytest.mark.parametrize("key", ["gpu_lock:", "gpu:0", "", "lock", 0, None])
def test_a_key_of_another_kind_is_refused_at_decoration(key):
    with pytest.raises(ConfigError, match="lock_key must name a GPU of this host"):
        gpu_lock(key)


def test_without_parentheses_it_is_refused_as_the_old_one_broke():
    with pytest.raises(ConfigError, match="needs parentheses"):

        @gpu_lock
        def task():
            pass


def test_a_card_that_the_program_does_not_see_is_refused(client, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES hides it"):
        gpu_lock("gpu_lock:0", client=client)(print)()
    assert gpu_lock("gpu_lock:1", client=client)(lambda: "ran")() == "ran"


def test_a_number_that_cuda_may_give_to_another_model_is_refused_unless_cuda_counts_by_the_bus(
    client, monkeypatch, tmp_path
):
    (tmp_path / STATE_FILE).write_text(json.dumps({"1": {"name": "Another GPU"}}))

    with pytest.raises(ConfigError, match="GPU 0 may be another one for CUDA"):
        gpu_lock(client=client)(print)()
    assert gpu_lock(f"gpu_lock:{CARDS[0]}", client=client)(lambda: "ran")() == "ran"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gpu_lock(client=client)(lambda: "ran")() == "ran"


# -- old beside new


def test_a_task_waits_for_the_holder_of_a_pool_and_the_pool_for_the_task(client, other, of_kind):
    cards, order = lockkit.gpu.pool(other), []
    with cards.acquire(ids=["0"], timeout=30):
        work = Work(lambda: run(of_kind(gpu_lock(client=client), lambda: order.append(len(holders(client))))))
        until(lambda: client.inspect(pool_name(f"gpu-sim/{HOST}", CARDS[0])).waiters)
        assert order == []
    work.result()
    assert order == [1]

    def refused():
        with pytest.raises(AcquireTimeout):
            cards.acquire(ids=["0"], timeout=0)
        with pytest.raises(AcquireTimeout):  # a part of it either
            cards.acquire(memory="1GiB", ids=["0"], timeout=0)
        with cards.acquire(ids=["1"], timeout=30) as leases:
            return leases.members

    assert run(of_kind(gpu_lock(client=client), refused)) == (CARDS[1],)


def test_a_task_with_the_new_name_under_asyncio_excludes_one_with_the_old_name(url, namespace, client):
    async def main():
        async with lockkit.aio.connect(url, namespace=namespace) as aio:
            cards = lockkit.gpu.aio.pool(aio)

            @gpu_lock(client=aio, max_wait_time=0)
            async def task():
                with pytest.raises(AcquireTimeout):
                    await cards.acquire(ids=["0"], timeout=0)
                return "ran"

            assert await task() == "ran"
            async with cards.acquire(ids=["0"], timeout=30):
                with pytest.raises(AcquireTimeout, match=r"^GPU_LOCK_TIMEOUT"):
                    await task()

    asyncio.run(main())
    assert not holders(client)


def test_a_task_that_waits_for_one_card_holds_up_nobody_who_wants_another(client, other):
    cards = lockkit.gpu.pool(other)
    with cards.acquire(ids=["0"], timeout=30):
        work = Work(gpu_lock(client=client)(lambda: "ran"))
        until(lambda: client.inspect(pool_name(f"gpu-sim/{HOST}", CARDS[0])).waiters)
        with cards.acquire(ids=["1"], timeout=30) as leases:
            assert leases.members == (CARDS[1],)
        assert gpu_lock("gpu_lock:1", client=other)(lambda: "ran")() == "ran"
    assert work.result() == "ran"


def test_a_task_in_a_task_does_not_wait_for_itself(client):
    task = gpu_lock(client=client)(lambda: "ran")

    with pytest.raises(DeadlockDetected, match=r"this thread holds .* would wait for itself"):
        gpu_lock(client=client)(task)()
    with pytest.raises(DeadlockDetected, match=r"this task holds .* would wait for itself"):
        asyncio.run(nested(client))


async def nested(client):
    @gpu_lock(client=client)
    async def task():
        return "ran"

    await gpu_lock(client=client)(task)()


def test_a_task_whose_thread_holds_the_card_from_the_pool_does_not_wait_for_itself(client, other):
    task = gpu_lock(client=client, max_wait_time=60)(lambda: "ran")

    for owner in (client, other):  # the client of the task, and another one of the same store
        with (
            lockkit.gpu.pool(owner).acquire(ids=["0"], timeout=30),
            pytest.raises(DeadlockDetected, match="would wait for itself"),
        ):
            task()
    assert task() == "ran"


def test_a_coroutine_task_whose_task_holds_the_card_from_the_pool_does_not_wait_for_itself(
    url, namespace, client
):
    async def main():
        @gpu_lock(client=client, max_wait_time=60)
        async def task():
            return "ran"

        async with lockkit.aio.connect(url, namespace=namespace) as aio:
            async with lockkit.gpu.aio.pool(aio).acquire(ids=["0"], timeout=30):
                with pytest.raises(DeadlockDetected, match="would wait for itself"):
                    await task()
            return await task()

    assert asyncio.run(main()) == "ran"


def test_a_card_of_another_store_or_of_another_thread_is_no_wait_for_oneself(client, other, tmp_path):
    with lockkit.connect("memory:") as elsewhere, lockkit.gpu.pool(elsewhere).acquire(ids=["0"], timeout=30):
        assert gpu_lock(client=client, max_wait_time=60)(lambda: "ran")() == "ran"
    with lockkit.gpu.pool(other).acquire(ids=["0"], timeout=30):
        work = Work(gpu_lock(client=client, max_wait_time=60)(lambda: "ran"))
        until(lambda: client.inspect(pool_name(f"gpu-sim/{HOST}", CARDS[0])).waiters)
    assert work.result() == "ran"


WORKER = """
import lockkit
from lockkit.gpu import gpu_lock
try:
    gpu_lock("gpu_lock:0")(print)()
except lockkit.DeadlockDetected as error:
    print(error)
gpu_lock("gpu_lock:1")(print)("ran")
"""


def test_a_worker_under_run_is_told_at_once_that_it_has_its_card_already(tmp_path, url, namespace):
    line = [sys.executable, "-m", "lockkit", "run", "--gpu", "1", "--gpu-id", "0", "-q", "--private", "--"]
    # As the worker sees both cards, it can ask for each.
    both = ["env", "-u", "CUDA_VISIBLE_DEVICES", sys.executable, "-c", WORKER]
    environ = os.environ | {"LOCKKIT_URL": url, "LOCKKIT_NAMESPACE": namespace}
    done = subprocess.run([*line, *both], env=environ, capture_output=True, text=True, timeout=60, check=True)
    refused, ran = done.stdout.splitlines()
    assert refused.startswith("the lockkit run or task around this program holds GPU 0")
    assert ran == "ran"


def test_five_tasks_run_in_turn_and_none_overlaps(client, other):
    inside, most = [], []

    def body():
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    works = [Work(gpu_lock(client=one)(body)) for one in (client, other, client, other, client)]
    for work in works:
        work.result()
    assert most == [1] * 5


# -- the times


def test_the_text_of_a_timeout_begins_as_it_did_and_the_body_does_not_run(client, other, of_kind):
    ran = []
    # A second, of which a busy machine may need much to find the card: what is left must be a wait.
    task = of_kind(gpu_lock(max_wait_time=1, client=client), lambda: ran.append(1))
    with (
        lockkit.gpu.pool(other).acquire(ids=["0"], timeout=30).detach(),  # held for another thread
        pytest.raises(
            AcquireTimeout, match=r"^GPU_LOCK_TIMEOUT: task did not get gpu_lock:0: .*held by"
        ) as late,
    ):
        run(task)
    assert late.value.holder.owner.pid == os.getpid()
    assert ran == []
    assert client.stats()["timeouts"] == 1


def test_an_error_of_the_body_keeps_its_text(client, of_kind):
    def fail():
        raise AcquireTimeout("of another lock")

    with pytest.raises(AcquireTimeout, match=r"^of another lock"):
        run(of_kind(gpu_lock(client=client), fail))


def test_the_timeout_is_the_ttl_as_far_as_the_store_has_it(client):
    def ttl(timeout):
        return gpu_lock(timeout=timeout, client=client)(lambda: holders(client)[0].ttl)()

    can = client.capabilities
    assert ttl(600) == min(600, can.max_ttl)
    assert ttl(None) == client.config.ttl
    assert ttl(can.min_ttl / 2) == can.min_ttl


def test_no_wait_time_means_that_of_the_configuration(url, namespace, other):
    with (
        lockkit.connect(url, namespace=namespace, timeout=0.1) as brief,
        lockkit.gpu.pool(other).acquire(ids=["0"], timeout=30).detach(),
        pytest.raises(AcquireTimeout, match=r"^GPU_LOCK_TIMEOUT"),
    ):
        gpu_lock(client=brief)(print)()


def test_no_task_waits_for_ever(client, monkeypatch):
    assert client.config.timeout is None
    monkeypatch.setattr("lockkit.gpu.task_runs._WAIT", 0.1)
    with lockkit.gpu.pool(client).acquire(ids=["0"], timeout=30):
        late = Work(gpu_lock(client=client)(print)).error()
    assert str(late).startswith("GPU_LOCK_TIMEOUT")


@pytest.mark.parametrize("name", ["poll_interval", "event_driven", "fallback_timeout"])
def test_the_polling_knobs_are_accepted_and_said_to_be_without_effect(client, name):
    with pytest.warns(DeprecationWarning, match=f"without effect.*: {name}$") as told:
        task = gpu_lock(**{name: 1}, client=client)(lambda: "ran")
    assert told[0].filename == __file__
    assert task() == "ran"


def test_all_old_keywords_in_their_old_order(client):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert gpu_lock("gpu_lock:0", 600, 1, 300, True, 5, client=client)(lambda: "ran")() == "ran"


@pytest.mark.parametrize(
    "how",
    [{"timeout": 0}, {"timeout": -1}, {"max_wait_time": -1}, {"max_wait_time": True}, {"max_wait_time": "9"}],
)
def test_a_time_that_is_none_is_refused_at_decoration(how):
    with pytest.raises(ConfigError, match=f"{next(iter(how))} must be"):
        gpu_lock(**how)


# -- functions of all kinds


def test_arguments_results_and_the_look_of_a_function_stay(client):
    @gpu_lock(client=client)
    def double(value, *, by=2):
        """Double it."""
        return value * by

    assert (double(4), double(4, by=3), double.__name__, double.__doc__) == (8, 12, "double", "Double it.")


def test_a_function_whose_work_would_follow_its_return_is_refused(client):
    def rows():
        yield 1

    with pytest.raises(ConfigError, match="generator function"):
        gpu_lock(client=client)(rows)
    with pytest.raises(ConfigError, match="returned a generator"):
        gpu_lock(client=client)(lambda: (one for one in [1]))()


def test_without_a_store_the_body_never_runs(tmp_path, monkeypatch, of_kind):
    pytest.importorskip("redis")
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    ran = []
    with lockkit.connect("redis://127.0.0.1:1/0", gpu_simulate=1, request_timeout=0.2) as client:
        task = of_kind(gpu_lock(client=client, max_wait_time=0.5), lambda: ran.append(1))
        with pytest.raises((BackendUnavailable, AcquireTimeout)):
            run(task)
    assert ran == []


def test_a_task_whose_lock_was_lost_does_not_return_its_result(client, of_kind):
    def lose():
        for copy in client.leases():
            client.evict(copy.name, claim_id=copy.claim_id, reason="test", now=True)
        until(lambda: not any(hold.standing for hold in client._opening.engine.beats.holds()))
        return "result"

    with pytest.raises(LeaseLost):
        run(of_kind(gpu_lock(timeout=1, client=client), lose))


def test_a_quarantined_card_is_given_to_no_task_until_it_is_cleared(client, of_kind):
    quarantine(client, SIMULATED, CARDS[0], "it hums", Owner(host="box", user="ann"))
    with pytest.raises(AcquireTimeout, match=r"^GPU_LOCK_TIMEOUT: .*quarantined by ann@box: it hums"):
        run(of_kind(gpu_lock(max_wait_time=0, client=client), print))
    work = Work(lambda: run(of_kind(gpu_lock(client=client), lambda: "ran")))
    until(lambda: client.stats()["released"] >= 2)
    clear(client, SIMULATED, CARDS[0])
    assert work.result() == "ran"


def test_the_memory_of_the_program_itself_does_not_keep_it_from_its_card(client, tmp_path):
    busy = {"processes": [{"pid": os.getpid(), "user": "ann", "program": "celery", "memory": "12GiB"}]}
    (tmp_path / STATE_FILE).write_text(json.dumps({"0": busy}))

    assert gpu_lock(client=client, max_wait_time=0)(lambda: "ran")() == "ran"


# -- the hand-over


def receipt(client, card=CARDS[0]):
    return last(client, SIMULATED, card, set())


def test_each_call_leaves_a_receipt_for_the_next_holder(client, tmp_path, of_kind):
    def leave(outcome):
        used = "3GiB" if outcome == "dirty" else "0GiB"
        (tmp_path / STATE_FILE).write_text(json.dumps({"0": {"used": used}}))
        return outcome

    for outcome in ("clean", "dirty"):
        assert run(of_kind(gpu_lock(client=client), lambda outcome=outcome: leave(outcome))) == outcome
        assert receipt(client).outcome == outcome
    with lockkit.gpu.pool(client).acquire(ids=["0"], accept_dirty=True, timeout=30) as leases:
        assert leases.receipts[CARDS[0]].outcome == "dirty"


def test_a_model_that_a_worker_keeps_on_the_card_is_told_to_others_and_holds_up_no_task(client, tmp_path):
    @gpu_lock(client=client)
    def load():
        mine = {"pid": os.getpid(), "user": "ann", "program": "celery", "memory": "12GiB"}
        (tmp_path / STATE_FILE).write_text(json.dumps({"0": {"processes": [mine]}}))

    load()
    assert receipt(client).outcome == "dirty"
    assert gpu_lock(client=client, max_wait_time=0)(lambda: "ran")() == "ran"
    assert receipt(client).outcome == "clean"  # as it was when the call began
    with pytest.raises(AcquireTimeout, match=f"pid {os.getpid()} "):
        lockkit.gpu.pool(client).acquire(ids=["0"], timeout=0)


def test_tasks_on_two_cards_at_once_leave_a_receipt_each(client):
    both = threading.Barrier(2)
    works = [Work(gpu_lock(f"gpu_lock:{index}", client=client)(lambda: both.wait(20))) for index in range(2)]
    for work in works:
        work.result()
    assert [receipt(client, card).outcome for card in CARDS[:2]] == ["clean", "clean"]


def test_the_face_lists_what_is_public_and_nothing_of_its_own():
    assert [name for name in dir(lockkit.gpu) if not name.startswith("__")] == sorted(lockkit.gpu.__all__)


# -- release_lock


@pytest.mark.parametrize("reason", ["normal", "timeout", "forced", "task_failure", "task_crash"])
def test_a_task_can_release_its_card_early_and_the_reason_is_kept(client, seen, of_kind, reason):
    def body():
        assert release_lock("task", "gpu_lock:0", reason) is True
        return bool(holders(client))

    assert run(of_kind(gpu_lock(client=client), body)) is False
    until(lambda: seen.reasons == [reason])
    assert violations(client) == 0


def test_a_reason_that_the_old_lock_did_not_have_is_refused_with_the_list_and_nothing_is_released(client):
    @gpu_lock(client=client)
    def task():
        with pytest.raises(
            ConfigError, match="normal, timeout, forced, task_failure, task_crash, not 'bogus'"
        ):
            release_lock("task", "gpu_lock:0", "bogus")
        return len(holders(client))

    assert task() == 1
    assert violations(client) == 0


def test_a_task_that_raises_is_released_once_as_a_failure_and_its_hook_finds_that_done(client, seen, of_kind):
    def fail():
        raise ValueError("of the task")

    task = of_kind(gpu_lock(client=client), fail)

    def with_hook():
        with pytest.raises(ValueError, match="of the task"):
            task()
        assert release_lock("task", "gpu_lock:0", "task_failure") is True

    async def with_hook_too():
        with pytest.raises(ValueError, match="of the task"):
            await task()
        assert release_lock("task", "gpu_lock:0", "task_failure") is True

    run(with_hook_too if asyncio.iscoroutinefunction(task) else with_hook)
    until(lambda: seen.reasons == ["task_failure"])
    assert (client.stats()["released"], violations(client)) == (1, 0)


def test_a_release_by_another_client_is_a_violation_of_that_client(client, other):
    @gpu_lock(client=client)
    def task():
        return release_lock("task", "gpu_lock:0", client=other), len(holders(client))

    assert task() == (False, 1)
    assert (violations(client), violations(other)) == (0, 1)


def test_five_releases_of_one_run_are_one(client, seen):
    @gpu_lock(client=client)
    def task():
        return [release_lock("task", "gpu_lock:0") for _ in range(5)]

    assert task() == [True] * 5
    until(lambda: seen.reasons == ["normal"])
    assert violations(client) == 0


@pytest.mark.parametrize(
    "task_name, key", [("stranger", "gpu_lock:0"), ("task", "gpu_lock:1"), ("task", "gpu:0"), ("", "")]
)
def test_what_the_run_does_not_hold_is_a_violation_and_the_holder_goes_on(
    client, seen, of_kind, task_name, key
):
    def body():
        assert release_lock(task_name, key, "forced", client=client) is False
        return len(holders(client))

    assert run(of_kind(gpu_lock(client=client), body)) == 1
    assert violations(client) == 1
    until(lambda: seen.reasons == ["normal"])


@pytest.mark.parametrize("reason", ["task_failure", "forced"])
def test_a_run_does_not_release_another_run_of_its_task(client, reason):
    """The old token was the task's name, so a run that timed out freed the card of the working one."""
    began, go = threading.Event(), threading.Event()

    @gpu_lock(client=client)
    def task():
        began.set()
        assert go.wait(20)
        return len(holders(client))

    first = Work(task)
    assert began.wait(20)

    def second():
        with pytest.raises(AcquireTimeout):
            gpu_lock(max_wait_time=0, client=client)(task.__wrapped__)()
        return release_lock("task", "gpu_lock:0", reason, client=client)

    assert Work(second).result() is False
    assert violations(client) == 1
    go.set()
    assert first.result() == 1


def test_a_run_that_timed_out_is_not_taken_for_the_one_before_it(client, other):
    @gpu_lock(max_wait_time=0, client=client)
    def task():
        return "ran"

    assert task() == "ran"
    with lockkit.gpu.pool(other).acquire(ids=["0"], timeout=30), pytest.raises(AcquireTimeout):
        task()
    assert release_lock("task", "gpu_lock:0", "task_failure", client=client) is False
    assert violations(client) == 1


def test_a_thread_that_the_task_starts_with_its_context_may_release_for_it(client):
    @gpu_lock(client=client)
    async def task():
        assert await asyncio.to_thread(release_lock, "task", "gpu_lock:0")
        return holders(client)

    assert asyncio.run(task()) == ()


def test_a_forked_child_does_not_release_the_card_of_its_parent(client):
    @gpu_lock(client=client)
    def task():
        child = os.fork()
        if not child:
            told = release_lock("task", "gpu_lock:0", "task_crash", client=client)
            os._exit(1 if told or violations(client) != 1 else 0)
        return os.waitpid(child, 0)[1], len(holders(client))

    assert task() == (0, 1)


def test_the_name_of_a_bound_celery_task_is_known_and_shown(client):
    @gpu_lock(client=client)
    def work(self, path):
        (holder,) = holders(client)
        return holder.reason, release_lock(self.name, "gpu_lock:0"), path

    class CeleryTask:
        name = "speech.transcribe"

        def apply_async(self):
            pass

    assert work(CeleryTask(), "a.wav") == ("speech.transcribe", True, "a.wav")


class Nameless:
    @property
    def name(self):
        raise RuntimeError("no name")


@pytest.mark.parametrize("argument", [Path("/videos/a.wav"), SimpleNamespace(name="b"), Nameless()])
def test_an_argument_that_has_a_name_is_not_taken_for_the_task(client, argument):
    @gpu_lock(client=client)
    def work(_file):
        (holder,) = holders(client)
        return holder.reason, release_lock("a.wav", "gpu_lock:0", client=client)

    assert work(argument) == ("work", False)


def test_a_task_that_fails_inside_another_one_on_the_same_card_leaves_that_its_release(client):
    inner = gpu_lock(client=client)(lambda: "ran")
    again = []

    @gpu_lock(client=client)
    def task():
        with pytest.raises(DeadlockDetected):
            inner()
        if not again:
            again.append(True)
            with pytest.raises(DeadlockDetected):
                task()
        told = release_lock("task", "gpu_lock:0"), len(holders(client))
        assert inner() == "ran"  # the card is free by now
        return *told, release_lock("task", "gpu_lock:0")

    assert task() == (True, 0, True)
    assert violations(client) == 0


@pytest.mark.parametrize("client", [3, "redis://localhost", lockkit])
def test_what_is_no_client_is_refused_at_decoration(client):
    with pytest.raises(ConfigError, match="client must be a client of lockkit"):
        gpu_lock(client=client)


def test_a_release_hides_no_error_of_a_task_whose_configuration_is_wrong(program):
    program(WRONG, "nonsense")


def test_a_release_says_no_where_the_store_does_not_confirm_it(redis, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    with lockkit.connect(redis.url(), namespace=os.urandom(6).hex(), gpu_simulate=1) as client:

        @gpu_lock(client=client)
        def task():
            client.evict(
                client.leases()[0].name, claim_id=client.leases()[0].claim_id, reason="test", now=True
            )
            return release_lock("task", "gpu_lock:0")

        with pytest.raises(LeaseLost):
            task()


# -- the default client


WRONG = """
from lockkit.errors import ConfigError
from lockkit.gpu import gpu_lock, release_lock

@gpu_lock()
def task():
    pass

try:
    task()
except ConfigError:
    assert release_lock("task", "gpu_lock:0", "task_failure") is False
else:
    raise AssertionError("the configuration was read")
"""
DEFAULT = """
import os
from lockkit.gpu import default_client, gpu_lock, release_lock
import lockkit.gpu.old_names as old

@gpu_lock()
def task():
    return release_lock("task", "gpu_lock:0")

assert old._default._cards is None  # nothing was made yet
assert task()
client = default_client()
assert client.url == "memory:" and client.is_open
assert not release_lock("stranger", "gpu_lock:0")
assert client.stats()["ownership_violations"] == 1
child = os.fork()
if not child:
    os._exit(0 if task() and default_client() is client else 1)
assert os.waitpid(child, 0)[1] == 0
client.close()
assert task() and default_client() is not client
"""


@pytest.fixture
def program(tmp_path):
    """Run a program that finds this configuration, with warnings as errors."""

    def run(text, config):
        (tmp_path / "config.toml").write_text(config)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
        environ |= {
            "LOCKKIT_CONFIG": str(tmp_path / "config.toml"),
            "LOCKKIT_STATE_DIR": str(tmp_path / "state"),
        }
        subprocess.run([sys.executable, "-W", "error", "-c", text], env=environ, check=True, timeout=60)

    return run


def test_tasks_that_name_no_client_share_one_that_is_made_when_it_is_needed(program):
    program(DEFAULT, 'url = "memory:"\n[gpu]\nsimulate = 1\n')


def test_a_program_that_only_decorates_reads_no_configuration(program):
    program("from lockkit.gpu import gpu_lock\n@gpu_lock()\ndef task(): pass", "nonsense")
