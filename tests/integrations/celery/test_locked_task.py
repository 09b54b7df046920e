"""A locked task runs only while it holds its lock, and what happens to it while the lock is busy."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from celery.states import FAILURE, IGNORED, RETRY

from lockkit.errors import AcquireTimeout, LeaseLost, NotHeld
from lockkit.facts import Skipped
from lockkit.integrations.celery import LockedTask, skipped_in
from lockkit.integrations.celery.retrying import HEADER
from support.handlers import Handler


def test_the_lock_is_held_while_the_function_runs_and_only_then(app, client, deliver):
    @app.task(bind=True, base=LockedTask, lock="invoice:{invoice_id}")
    def bill(self, invoice_id):
        (claim,) = client.inspect("invoice:7").claims
        return [claim.state, self.lease.fence, self.lease.name]

    done = deliver(bill, 7)

    assert done.info is None
    assert done.retval[0] == "HELD"
    assert done.retval[2] == "invoice:7"
    assert client.inspect("invoice:7").claims == ()
    with pytest.raises(NotHeld, match="holds no lock here"):
        bill.lease  # noqa: B018


def test_a_busy_task_is_sent_again_and_its_own_retries_are_not_counted(app, rival, deliver, queued, task_id):
    @app.task(base=LockedTask, lock="invoice:{invoice_id}", max_retries=0)
    def bill(invoice_id):
        raise AssertionError("ran without the lock")

    rival("invoice:7")
    done = deliver(bill, 7, retries=0)

    assert done.info.state == RETRY
    assert "busy" in str(done.info.retval)
    (message,) = queued()
    assert message.headers["id"] == task_id
    assert message.headers["retries"] == 0
    assert message.headers[HEADER]["tries"] == 1
    assert message.headers["eta"] is not None


def test_the_wait_goes_on_over_all_messages_until_max_wait_is_over(app, rival, deliver, queued):
    @app.task(base=LockedTask, lock="a", max_wait=600, max_retries=0)
    def work():
        raise AssertionError("ran without the lock")

    rival("a")
    deliver(work)
    (first,) = queued()
    deliver(work, headers=dict(first.headers))
    (second,) = queued()
    assert second.headers[HEADER]["since"] == first.headers[HEADER]["since"]
    assert second.headers[HEADER]["tries"] == 2

    over = {
        **second.headers,
        HEADER: {**second.headers[HEADER], "since": first.headers[HEADER]["since"] - 601},
    }
    done = deliver(work, headers=over)

    assert done.info.state == FAILURE
    assert isinstance(done.info.retval, AcquireTimeout)
    assert "max_wait" in str(done.info.retval)
    assert done.info.retval.holder is not None
    assert queued() == []


def test_a_skipped_task_says_who_holds_the_lock(app, client, rival, deliver, task_id):
    @app.task(base=LockedTask, lock="a", on_busy="skip")
    def work():
        raise AssertionError("ran without the lock")

    lease = rival("a")
    done = deliver(work)

    assert done.info is None
    stored = app.backend.get_result(task_id)
    assert stored == done.retval
    skipped = skipped_in(stored)
    assert skipped == Skipped("a", skipped.holder)
    assert skipped.holder.claim_id == lease.claim_id
    assert skipped.holder.owner.pid == client.owner.pid
    assert client.stats()["skipped"] == 1
    direct = work()
    assert isinstance(direct, Skipped)
    assert direct.holder.claim_id == lease.claim_id


def test_a_failing_task_names_the_holder(app, rival, deliver):
    @app.task(base=LockedTask, lock="a", on_busy="fail")
    def work():
        raise AssertionError("ran without the lock")

    lease = rival("a")
    done = deliver(work)
    assert done.info.state == FAILURE
    assert done.info.retval.holder.claim_id == lease.claim_id
    assert 'on_busy="wait" waits for it' in str(done.info.retval)
    assert "timeout" not in str(done.info.retval), "LockedTask refuses the option"


def test_a_waiting_task_waits_in_the_worker(app, rival, deliver):
    @app.task(base=LockedTask, lock="a", on_busy="wait", max_wait=60)
    def work():
        return "done"

    lease = rival("a")
    threading.Timer(0.1, lease.release).start()
    assert deliver(work).retval == "done"


def test_the_claim_says_which_task_holds_what(app, client, deliver, task_id):
    @app.task(base=LockedTask, lock="a", name="proj.work")
    def work():
        return client.inspect("a").claims[0].owner

    owner = deliver(work, retries=2).retval
    assert (owner.task, owner.task_id, owner.retries, owner.worker) == ("proj.work", task_id, 2, "w1@box")
    assert f"for task proj.work[{task_id}], retry 2" in str(owner)


def test_a_twin_of_the_running_message_leaves_no_result(app, deliver):
    @app.task(base=LockedTask, lock="a", on_busy="skip")
    def work(inner=False):
        assert not inner
        with ThreadPoolExecutor(1) as another_worker:
            return another_worker.submit(deliver, work, True).result().info.state

    assert deliver(work).retval == IGNORED


def test_the_result_is_refused_if_the_lock_was_lost(app, deliver):
    @app.task(bind=True, base=LockedTask, lock="a")
    def work(self):
        self.lease.simulate_loss()
        return "a result"

    done = deliver(work)
    assert done.info.state == FAILURE
    assert isinstance(done.info.retval, LeaseLost)


def test_an_eager_task_takes_the_lock_too(app, client):
    @app.task(bind=True, base=LockedTask, lock="a")
    def work(self):
        return self.lease.valid()

    assert work.apply().get() is True
    assert work() is True
    assert client.inspect("a").claims == ()


def test_a_time_limit_that_strikes_between_the_lock_and_the_function_frees_the_lock_at_once(app, client):
    """Celery keeps the traceback, and with it the frame that has the lease."""

    @app.task(base=LockedTask, lock="a", ttl=600)
    def work():
        raise AssertionError("ran")

    def strike():
        raise SoftTimeLimitExceeded

    with (
        Handler(1, strike, "__get__", "lockkit/lib/leaving.py") as limit,
        pytest.raises(SoftTimeLimitExceeded) as kept,
    ):
        work()

    assert limit.where
    assert kept.value.__traceback__
    assert client.inspect("a").claims == ()
