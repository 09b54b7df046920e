"""Every kind of Celery task: chains, chords, retries, late acknowledgement, eager, direct, pydantic."""

from __future__ import annotations

import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import celery._state
import pytest
from celery import Task, chain, chord, current_app
from celery.app.trace import reset_worker_optimizations
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.states import FAILURE, IGNORED, REJECTED, RETRY, SUCCESS

import lockkit
from lockkit.errors import AcquireTimeout, ConfigError, DeadlockDetected, Drained, NotHeld
from lockkit.facts import Skipped
from lockkit.integrations.celery import LockedTask, skipped_in, worker_pool
from lockkit.integrations.celery.retrying import HEADER
from lockkit.sync.pools import PoolLeases
from support.celery import own_pools


@pytest.fixture
def reasons(app, client):
    """The reasons of the releases so far."""
    told = []

    class Listener:
        @lockkit.hookimpl
        def lockkit_event(self, event):
            if event.kind == "released":
                told.append(event.reason)

    client.plugins.register(Listener(), name="listener")

    def read():
        client.driver().dispatcher.flush(20.0)
        return told

    return read


# -- how a run ends


def test_the_release_says_how_the_run_ended(app, deliver, reasons):
    @app.task(bind=True, base=LockedTask, lock="a", max_retries=None)
    def work(self, how):
        if how == "retry":
            raise self.retry(countdown=5)
        if how is not None:
            raise {
                "ignore": Ignore(),
                "reject": Reject("no", requeue=False),
                "soft_time_limit": SoftTimeLimitExceeded(),
                "task_failure": ValueError("no"),
            }[how]

    endings = {
        "retry": RETRY,
        "ignore": IGNORED,
        "reject": REJECTED,
        "soft_time_limit": FAILURE,
        "task_failure": FAILURE,
    }
    for how, state in endings.items():
        assert deliver(work, how).info.state == state
    assert deliver(work, None).info is None
    assert reasons() == [*endings, "normal"]


def test_a_worker_that_is_told_to_exit_in_the_middle_of_a_task_releases(app, client, deliver, reasons):
    @app.task(base=LockedTask, lock="a")
    def work():
        raise SystemExit

    with pytest.raises(SystemExit):
        deliver(work)
    assert client.inspect("a").claims == ()
    assert reasons() == ["exit"]


def test_the_exception_of_the_task_wins_over_the_loss_of_its_lock(app, deliver):
    @app.task(bind=True, base=LockedTask, lock="a")
    def work(self):
        self.lease.simulate_loss()
        raise ValueError("the task's own")

    assert isinstance(deliver(work).info.retval, ValueError)


def test_a_result_that_still_has_to_run_is_refused(app, deliver):
    @app.task(base=LockedTask, lock="a")
    def work():
        return (number for number in [1])

    assert isinstance(deliver(work).info.retval, ConfigError)


# -- retries


def test_its_own_retry_and_autoretry_count_as_before_and_begin_a_new_wait(app, rival, deliver, queued):
    @app.task(base=LockedTask, lock="a", autoretry_for=(ValueError,), max_retries=1, retry_backoff=True)
    def work():
        raise ValueError("the task's own")

    done = deliver(work, headers={HEADER: {"since": 1.0, "tries": 5, "retries": 0}, "mine": "kept"})
    assert done.info.state == RETRY
    (own,) = queued()
    assert own.headers["retries"] == 1
    assert own.headers["mine"] == "kept"

    lease = rival("a")
    deliver(work, headers=dict(own.headers), retries=1)
    (waiting,) = queued()
    assert waiting.headers["retries"] == 1
    assert waiting.headers[HEADER]["tries"] == 1
    assert waiting.headers[HEADER]["since"] > 1.0
    assert waiting.headers["mine"] == "kept"
    lease.release()

    done = deliver(work, headers=dict(waiting.headers), retries=1)
    assert done.info.state == FAILURE
    assert isinstance(done.info.retval, ValueError)
    assert queued() == []


@pytest.mark.parametrize("way", ["retry", "autoretry", "replace"])
@pytest.mark.parametrize("on_busy", ["skip", "fail", "retry"])
def test_what_a_task_sends_itself_is_no_second_delivery(app, task_id, deliver, queued, on_busy, way):
    """The earlier run still holds the lock: it has just sent the message, or ``min_hold`` is not over."""

    @app.task(bind=True, base=LockedTask, lock="a", on_busy=on_busy, min_hold=60, autoretry_for=(KeyError,))
    def work(self, again=True):
        if way == "retry":
            raise self.retry(countdown=0)
        if way == "autoretry":
            raise KeyError
        return self.replace(work.s(again=False))

    deliver(work)
    (own,) = queued()
    assert own.headers["id"] == task_id
    headers = {key: own.headers[key] for key in ("id", "replaced_task_nesting")}
    done = deliver(work, headers=headers, retries=own.headers["retries"])
    assert done.info.state == RETRY
    (again,) = queued()
    assert again.headers["id"] == task_id
    assert again.headers["retries"] == own.headers["retries"]
    redelivered = {**headers, "delivery_info": {"redelivered": True, "routing_key": "x", "exchange": ""}}
    if way == "replace" and on_busy != "retry":
        assert deliver(work, headers=redelivered).info.state == IGNORED, "a second delivery of what it sent"


def test_an_error_of_the_lock_is_not_the_tasks_own(app, rival, deliver, queued):
    @app.task(base=LockedTask, lock="a", on_busy="fail", autoretry_for=(Exception,))
    def work(): ...

    rival("a")
    assert deliver(work).info.state == FAILURE
    assert queued() == []


PICKLED = {"properties": {"content_type": "application/x-python-serialize"}}


def test_a_message_is_sent_again_with_the_serializer_that_it_came_with(app, rival, deliver, queued):
    app.conf.accept_content = ["json", "pickle"]

    @app.task(base=LockedTask, lock="a", acks_late=True)
    def work(number): ...

    rival("a")
    assert deliver(work, {7}, headers=PICKLED).info.state == RETRY
    (message,) = queued()
    assert message.content_type == "application/x-python-serialize"
    message.accept = {message.content_type}
    assert list(message.payload[0]) == [{7}]
    assert (
        deliver(work, 7, headers={"properties": {"content_type": "application/x-unheard-of"}}).info.state
        == RETRY
    )
    assert [message.content_type for message in queued()] == ["application/json"]


@pytest.mark.parametrize("way", ["retry", "autoretry"])
def test_so_is_one_that_the_task_itself_sends_again(app, deliver, queued, way):
    """With the application's serializer Celery would reject the message, and the work would be lost."""
    app.conf.accept_content = ["json", "pickle"]

    @app.task(bind=True, base=LockedTask, lock="a", acks_late=True, autoretry_for=(KeyError,))
    def work(self, number, serializer=None):
        if way == "retry":
            raise self.retry(**({"serializer": serializer} if serializer else {}))
        raise KeyError

    assert deliver(work, {7}, headers=PICKLED).info.state == RETRY
    assert [message.content_type for message in queued()] == ["application/x-python-serialize"]
    if way == "retry":
        assert deliver(work, 7, "yaml", headers=PICKLED).info.state == RETRY
        assert [message.content_type for message in queued()] == ["application/x-yaml"], "as the task says"


@pytest.mark.parametrize("acks_late", [False, True])
def test_a_message_that_no_serializer_can_carry_fails_by_name(app, rival, deliver, queued, acks_late):
    @app.task(base=LockedTask, lock="a", acks_late=acks_late, name="proj.work")
    def work(number): ...

    rival("a")
    done = deliver(work, {7})
    assert done.info.state == FAILURE
    assert str(done.info.retval).startswith("proj.work[")
    assert "set is not JSON serializable" in str(done.info.retval)
    assert done.info.retval.name == "a"
    assert done.info.retval.hint
    assert queued() == []


def test_a_late_acknowledged_message_goes_back_if_it_cannot_be_sent_again(app, rival, deliver, monkeypatch):
    @app.task(base=LockedTask, lock="a", acks_late=True)
    def late(): ...

    @app.task(base=LockedTask, lock="a")
    def early(): ...

    pauses = []
    monkeypatch.setattr(time, "sleep", lambda pause, sleep=time.sleep: (pauses.append(pause), sleep(pause)))

    rival("a")
    app.conf.broker_write_url = app.conf.broker_url = "redis://127.0.0.1:1/0"
    app.conf.task_publish_retry = False
    app.conf.broker_transport_options = {
        "socket_connect_timeout": 1,
        "max_retries": 0,
        "visibility_timeout": 1,
    }
    app.amqp._producer_pool = None
    app.pool.force_close_all()
    app._pool = None

    done = deliver(late)
    assert done.info.state == REJECTED
    assert done.info.retval.requeue is True
    assert 0.4 in pauses, "a broker that delivers, and takes nothing, is not asked without a pause"
    # Nothing is left of this message, so the task fails where everybody sees it.
    assert deliver(early).info.state == FAILURE


def test_a_task_sent_again_keeps_the_chain_and_the_chord_that_it_is_part_of(app, rival, deliver, queued):
    @app.task(base=LockedTask, lock="a")
    def work():
        return "done"

    @app.task
    def after(result): ...

    following = chain(after.s(), after.s()).tasks
    body = chord([work.s()], after.s()).body
    rival("a")
    deliver(work, headers={"chain": list(following), "chord": dict(body), "group": "g1", "group_index": 0})

    (message,) = queued()
    _, _, embedded = message.payload
    assert [one["task"] for one in embedded["chain"]] == [after.name, after.name]
    assert embedded["chord"]["task"] == after.name
    assert message.headers["group"] == "g1"


def test_a_task_may_replace_itself(app, client, deliver, queued):
    @app.task
    def other(): ...

    @app.task(bind=True, base=LockedTask, lock="a")
    def work(self):
        return self.replace(other.s())

    assert deliver(work).info.state == IGNORED
    (message,) = queued()
    assert message.headers["task"] == other.name
    assert client.inspect("a").claims == ()


# -- eager and direct calls


@pytest.mark.parametrize("call", [lambda task: task(), lambda task: task.apply(throw=True).get()])
def test_a_call_without_a_message_waits_for_the_lock_where_a_message_would_be_sent_again(
    app, rival, call, queued
):
    @app.task(bind=True, base=LockedTask, lock="a", max_wait=60)
    def work(self):
        return self.request.retries

    lease = rival("a")
    threading.Timer(0.1, lease.release).start()
    assert call(work) == 0
    assert queued() == []


@pytest.mark.parametrize("call", [lambda task: task(), lambda task: task.apply(throw=True).get()])
def test_and_for_no_longer_than_max_wait(app, rival, call):
    @app.task(base=LockedTask, lock="a", max_wait=0.1)
    def work(): ...

    rival("a")
    with pytest.raises(AcquireTimeout, match="max_wait"):
        call(work)


def test_an_application_that_runs_all_tasks_eagerly_takes_their_locks(app, client):
    app.conf.task_always_eager = app.conf.task_eager_propagates = True

    @app.task(base=LockedTask, lock="a:{number}")
    def work(number):
        return [claim.state for claim in client.inspect(f"a:{number}").claims]

    assert work.delay(7).get() == ["HELD"]
    assert chain(work.si(1), work.si(2))().get() == ["HELD"]


def test_a_task_that_calls_itself_directly_takes_the_lock_of_the_inner_call(app, client, deliver):
    @app.task(bind=True, base=LockedTask, lock="a:{depth}")
    def work(self, depth):
        inner = work(depth - 1) if depth else []
        return [*inner, self.lease.name]

    assert deliver(work, 1).retval == ["a:0", "a:1"]


def test_and_does_not_wait_for_itself(app, deliver):
    @app.task(bind=True, base=LockedTask, lock="a")
    def work(self):
        return work()

    assert isinstance(deliver(work).info.retval, DeadlockDetected)


class ByRun(Task):
    """The base class of Flask's documentation."""

    def __call__(self, *args, **keywords):
        self.around = True
        try:
            return self.run(*args, **keywords)
        finally:
            self.around = False


class BySuper(Task):
    def __call__(self, *args, **keywords):
        self.around = True
        try:
            return super().__call__(*args, **keywords)
        finally:
            self.around = False


class OwnByRun(LockedTask):
    abstract = True
    __call__ = ByRun.__call__


class OwnBySuper(LockedTask):
    abstract = True

    def __call__(self, *args, **keywords):
        self.around = True
        try:
            return super().__call__(*args, **keywords)
        finally:
            self.around = False


class OwnByClass(LockedTask):
    abstract = True

    def __call__(self, *args, **keywords):
        self.around = True
        try:
            return type(self).run(self, *args, **keywords)
        finally:
            self.around = False


@pytest.mark.parametrize("way", ["worker", "direct", "eager"])
@pytest.mark.parametrize("autoretry", [False, True], ids=["", "autoretry"])
@pytest.mark.parametrize(
    "bases",
    [
        (ByRun, LockedTask),
        (LockedTask, ByRun),
        (BySuper, LockedTask),
        (LockedTask, BySuper),
        (OwnByRun,),
        (OwnBySuper,),
        (OwnByClass,),
    ],
    ids=lambda bases: "+".join(base.__name__ for base in bases),
)
def test_a_call_of_a_class_beside_it_runs_and_leaves_no_lock_out(app, deliver, client, bases, autoretry, way):
    base = type("Base", bases, {"abstract": True})

    @app.task(bind=True, base=base, lock="a:{number}", autoretry_for=(KeyError,) if autoretry else ())
    def work(self, number):
        inner = work(number - 1) if number else []
        return [*inner, (self.lease.name, self.around)]

    run = {
        "worker": lambda: deliver(work, 1).retval,
        "direct": lambda: work(1),
        "eager": lambda: work.apply((1,)).get(),
    }[way]
    names, flags = zip(*run(), strict=True)
    assert names == ("a:0", "a:1")
    assert flags[0] is True
    assert client.names() == []


def test_a_run_that_a_class_beside_it_has_takes_the_lock(app, deliver):
    class Mixin:
        def run(self, number):
            return [self.lease.name, *super().run(number)]

    class Base(LockedTask):
        abstract = True
        lock = "a:{number}"

        def run(self, number):
            return [self.lease.name, number]

    class Work(Mixin, Base):
        name = "work"

    work = app.register_task(Work())
    assert deliver(work, 7).retval == ["a:7", "a:7", 7]
    assert work.run(8) == ["a:8", "a:8", 8], "a call of the function alone is a direct call"


def test_a_run_that_a_class_gets_later_takes_the_lock(app, deliver):
    class Work(LockedTask):
        name, lock = "work", "a:{number}"

        def run(self, number):
            return number

    Work.run = lambda self, number: self.lease.name
    assert deliver(app.register_task(Work()), 7).retval == "a:7"


def test_the_function_of_a_class_can_be_tested_without_a_task(app):
    @app.task(bind=True, base=LockedTask, lock="a")
    def work(self, number):
        return self, number

    assert type(app.tasks[work.name]).run("self", 7) == ("self", 7)


def test_a_call_that_runs_the_function_twice_takes_the_lock_twice(app, deliver):
    class Twice(LockedTask):
        abstract = True

        def __call__(self, *args, **keywords):
            return [self.run(*args, **keywords), self.run(*args, **keywords)]

    @app.task(bind=True, base=Twice, lock="a")
    def work(self):
        return self.lease.fence

    first, second = deliver(work).retval
    assert first < second


def test_threads_that_run_tasks_have_a_lease_each(app, deliver):
    together = threading.Barrier(2, timeout=20)

    @app.task(bind=True, base=LockedTask, lock="a:{number}")
    def work(self, number):
        together.wait()
        return self.lease.name

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(deliver, work, number, task_id=f"t{number}") for number in (1, 2)]
        assert [run.result().retval for run in runs] == ["a:1", "a:2"]


# -- what is locked


def test_a_semaphore_lets_some_in(app, deliver, rival):
    @app.task(base=LockedTask, lock="s", capacity=2, permits=1, on_busy="skip")
    def work(depth):
        with ThreadPoolExecutor(1) as another:
            return (
                another.submit(deliver, work, depth - 1, task_id=f"t{depth}").result().retval
                if depth
                else "in"
            )

    assert deliver(work, 1).retval == "in"
    assert skipped_in(deliver(work, 2).retval).name == "s"


def test_members_of_a_pool(app, client, deliver):
    @app.task(bind=True, base=LockedTask, pool="licences", members=["x", "y", "z"], count=2, on_busy="skip")
    def work(self, inner=True):
        assert isinstance(self.leases, PoolLeases)
        self.leases.beat(progress=0.5)
        with pytest.raises(NotHeld, match=r"self\.leases"):
            self.lease  # noqa: B018
        with ThreadPoolExecutor(1) as another:
            refused = (
                another.submit(deliver, work, False, task_id="another").result().retval if inner else None
            )
        return [self.leases.members, skipped_in(refused)]

    members, skipped = deliver(work).retval
    assert members == ("x", "y")
    assert isinstance(skipped, Skipped)
    assert skipped.holder.owner.task == work.name


def test_a_gpu_or_a_share_of_one_which_the_child_processes_see(app, deliver, monkeypatch):
    import os

    app.conf.lockkit_gpu_simulate = 2
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    @app.task(bind=True, base=LockedTask, gpu=1, gpu_mem="8GiB")
    def share(self):
        (card,) = self.gpus.devices
        return [
            self.gpus.environment("index")["CUDA_VISIBLE_DEVICES"],
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            card.uuid,
        ]

    @app.task(bind=True, base=LockedTask, gpu=2)
    def both(self):
        return len(self.gpus.devices)

    index, seen, _ = deliver(share).retval
    assert seen == index
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert deliver(both).retval == 2

    monkeypatch.setattr(worker_pool, "_kinds", ["threads"])  # where the environment belongs to others, too
    assert deliver(share).retval[1] is None


def test_the_fence_goes_to_the_argument_that_asks_for_it(app, deliver):
    @app.task(base=LockedTask, lock="a", fence_as="fence")
    def work(number, *, fence=0):
        return [number, fence]

    first, second = deliver(work, 7).retval, deliver(work, 7).retval
    assert first[0] == 7
    assert 0 < first[1] < second[1]


def test_names_are_made_from_all_kinds_of_arguments(app, deliver):
    @app.task(bind=True, base=LockedTask, lock="{kind}:{order[id]}:{rest[0]}:{size}")
    def work(self, order, kind="order", *rest, size=1):
        return self.lease.name

    assert deliver(work, {"id": 7}, "o", "x", size=2).retval == "o:7:x:2"
    done = deliver(work, {"number": 7}, "o", "x")
    assert isinstance(done.info.retval, ConfigError)
    assert "does not fit the arguments" in str(done.info.retval)


@pytest.mark.parametrize("value", [{"a": 1, "b": 2}, {1, 2}, [{"a": 1}]])
def test_no_lock_is_named_after_what_has_no_order(app, deliver, value):
    @app.task(base=LockedTask, lock="a:{value}")
    def work(value):
        raise AssertionError("ran")

    refused = deliver(work, value).info.retval
    assert isinstance(refused, ConfigError)
    assert "'a:{value}': a lock would be named after" in str(refused)
    assert "{value[id]}" in str(refused)


@pytest.mark.parametrize(
    "template", ["b:{found}", "b:{found[id]}", "b:{found.name}", "b:{found[lockkit_skipped]}", "b:{rest[0]}"]
)
@pytest.mark.parametrize("way", ["message", "direct"])
def test_after_a_skipped_task_no_lock_is_named_after_the_skip(app, rival, deliver, template, way):
    @app.task(base=LockedTask, lock="a", on_busy="skip")
    def first(): ...

    @app.task(base=LockedTask, lock=template)
    def second(found, *rest):
        raise AssertionError("ran")

    rival("a")
    skipped = deliver(first).retval if way == "message" else first()
    refused = deliver(second, skipped, skipped).info.retval
    assert isinstance(refused, ConfigError)
    assert "the call that it was to come from was skipped, because 'a' was busy" in str(refused)
    assert "skipped_in" in str(refused)


def test_a_task_after_a_skipped_one_runs_if_its_lock_is_not_named_after_the_result(app, rival):
    app.conf.task_always_eager = app.conf.task_eager_propagates = True

    @app.task(base=LockedTask, lock="a", on_busy="skip")
    def first(): ...

    @app.task(base=LockedTask, lock="b:{number}")
    def second(found, number):
        return skipped_in(found).name

    rival("a")
    assert chain(first.s(), second.s(7))().get() == "a"


def test_a_claim_lives_for_60_seconds_unless_something_says_otherwise(app, deliver):
    @app.task(bind=True, base=LockedTask, lock="a")
    def usual(self):
        return self.lease.ttl

    assert deliver(usual).retval == 60.0


def test_unless_the_configuration_says_otherwise(app, deliver):
    app.conf.lockkit_ttl = 12

    @app.task(bind=True, base=LockedTask, lock="a")
    def configured(self):
        return self.lease.ttl

    assert deliver(configured).retval == 12.0


# -- where it runs


def test_a_pool_of_greenlets_is_refused(app, deliver, monkeypatch):
    @app.task(base=LockedTask, lock="a")
    def work(): ...

    monkeypatch.setattr(worker_pool, "_kinds", ["gevent"])
    done = deliver(work)
    assert isinstance(done.info.retval, ConfigError)
    assert "(--pool)" in str(done.info.retval)


def test_waiting_in_a_solo_pool_is_refused(app, deliver, monkeypatch):
    @app.task(base=LockedTask, lock="a", on_busy="wait")
    def work(): ...

    @app.task(base=LockedTask, lock="a")
    def again():
        return SUCCESS

    monkeypatch.setattr(worker_pool, "_kinds", ["solo"])
    assert 'on_busy="retry"' in str(deliver(work).info.retval)
    assert deliver(again).retval == SUCCESS


@pytest.fixture
def celery_as_before(app):
    """Undo what the making of a worker does to Celery in the whole process."""
    before = Task.__call__, current_app._get_current_object(), celery._state.default_app
    yield
    reset_worker_optimizations(app)
    Task.__call__, current, celery._state.default_app = before
    current.set_current()
    celery._state._set_task_join_will_block(False)


@pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning")  # the tests may run as root
def test_a_worker_tells_its_pool_at_its_start(app, monkeypatch, celery_as_before):
    monkeypatch.setattr(worker_pool, "_kinds", [])
    assert worker_pool.pool_kind() == ""
    for pool, kind in (("solo", "solo"), ("threads", "threads"), ("prefork", "prefork")):
        app.Worker(pool=pool, concurrency=1)
        assert worker_pool.pool_kind() == kind


@pytest.mark.parametrize("kind, name", [("threads", "Threads"), ("prefork", "Processes")])
def test_a_pool_of_ones_own_is_of_the_kind_of_the_one_that_it_is_derived_from(kind, name):
    for pool in f"support.celery.own_pools:Own{name}", getattr(own_pools, f"Own{name}"):
        assert worker_pool.kind_of(pool) == kind
    for pool in "nowhere:Pool", own_pools.Unknown:
        assert worker_pool.kind_of(pool) not in ("threads", "prefork")


# -- what leaves the worker


def test_the_error_of_a_task_reaches_whoever_asks_for_its_result(app, rival, deliver, task_id):
    @app.task(base=LockedTask, lock="a", on_busy="fail")
    def work(): ...

    lease = rival("a")
    deliver(work)
    with pytest.raises(AcquireTimeout, match="'a' is busy; held by") as told:
        app.AsyncResult(task_id).get(timeout=20)
    assert told.value.name == "a"
    assert told.value.holder.claim_id == lease.claim_id
    assert told.value.holder.owner.pid == os.getpid()


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml"])
@pytest.mark.parametrize("late", [False, True], ids=["own", "lock"])
def test_errors_of_lockkit_arrive_with_what_they_say(app, rival, client, deliver, task_id, serializer, late):
    """The lock is the task's own, or one that its function takes."""
    app.conf.result_serializer, app.conf.accept_content = serializer, [serializer]
    lease = rival("b")

    @app.task(base=LockedTask, lock="b" if late else "a", on_busy="fail")
    def work():
        client.lock("b").acquire(timeout=0)

    done = deliver(work)
    assert repr(done.info.retval).startswith("AcquireTimeout(\"'b' is busy")
    error = app.AsyncResult(task_id).result
    assert isinstance(error, AcquireTimeout)
    assert (error.name, error.holder.claim_id) == ("b", lease.claim_id)


def test_a_namespace_that_is_drained_arrives_as_such(app, client, deliver, task_id):
    @app.task(base=LockedTask, lock="a", on_busy="fail")
    def work(): ...

    client.drain("new kernel")
    deliver(work)
    with pytest.raises(Drained, match="new kernel") as told:
        app.AsyncResult(task_id).get(timeout=20)
    client.undrain()
    assert told.value.drain.reason == "new kernel"


def test_a_task_that_is_sent_again_says_who_is_in_its_way(app, rival, deliver, task_id):
    @app.task(base=LockedTask, lock="a")
    def work(): ...

    lease = rival("a")
    deliver(work)
    assert app.AsyncResult(task_id).result.holder.claim_id == lease.claim_id


def test_a_retry_crosses_from_a_child_process_to_its_worker(app, rival, deliver):
    @app.task(base=LockedTask, lock="a")
    def work(): ...

    rival("a")
    retry = pickle.loads(pickle.dumps(deliver(work).info.retval))
    assert isinstance(retry.exc, AcquireTimeout)
    assert retry.exc.holder is not None
    assert str(retry).startswith("waits for 'a'")


def test_map_starmap_and_chunks_take_the_lock_for_each_item(app, client):
    app.conf.task_always_eager = app.conf.task_eager_propagates = True

    @app.task(base=LockedTask, lock="a:{number}")
    def work(number):
        return client.inspect(f"a:{number}").claims[0].state

    assert work.map([1, 2]).delay().get() == ["HELD", "HELD"]
    assert work.starmap([(1,), (2,)]).delay().get() == ["HELD", "HELD"]
    assert work.chunks([(1,), (2,)], 1)().get() == [["HELD"], ["HELD"]]
