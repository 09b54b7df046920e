"""The public interface: the decorator, notes and records, inspect, errors across processes, worker turns."""

from __future__ import annotations

import pickle
import threading

from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.facts import Skipped
from lockkit.store.spi import NOTE_LIMIT, Conflict
from lockkit.testing.scenarios.handoffs import IN_VAIN
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import Stage, scenario

__all__ = ["decorator"]


@scenario("L4-decorator", (MUTEX,))
def decorator(stage: Stage) -> None:
    """``locked`` names its lock by the arguments, skips or raises when busy, and refuses bad templates."""
    ours, theirs = stage.client(), stage.client()
    ran: list[object] = []

    @ours.locked("invoice:{invoice_id}/{copy}", timeout=0, on_busy="skip")
    def bill(invoice_id: int, copy: str = "a") -> str:
        ran.append(invoice_id)
        assert len(stage.held(f"invoice:{invoice_id}/{copy}")) == 1
        return "done"

    @ours.locked("invoice:{invoice_id}/a", timeout=0)
    def strict(invoice_id: int) -> str:
        return f"done {invoice_id}"

    assert bill(7) == "done"
    assert bill(invoice_id=8, copy="b") == "done"
    lease = stage.take(theirs.lock("invoice:7/a", ttl=stage.harness.ttl))
    skipped = bill(7)
    assert isinstance(skipped, Skipped)
    assert not skipped
    assert skipped.holder is not None
    assert skipped.holder.claim_id == lease.claim_id
    assert skipped.since is not None
    assert ran == [7, 8]
    assert bill(9) == "done"
    assert isinstance(stage.work(lambda: strict(7)).error(), AcquireTimeout)
    assert ours.stats()["skipped"] == 1
    for template in ("{nobody}", "{", "a\0b"):
        bad = ours.locked(template)
        assert isinstance(stage.work(lambda bad=bad: bad(lambda x: x)).error(), ConfigError), template  # type: ignore[misc]
    assert ours.names() == ["invoice:7/a"]


@scenario("S2-available")
def available(stage: Stage) -> None:
    """``available()`` is what a new claim could have at once, and ``held()`` which thread holds what."""
    client = stage.client()
    lock = stage.holder(client)
    most = 2 if lock.terms.kind == "semaphore" else 1
    assert lock.available() == most
    assert client.inspect(stage.name).available is None
    assert not lock.held()
    mine = stage.take(lock)
    assert lock.held()
    assert not stage.work(lock.held).result(), "not for another thread"
    assert not stage.holder(stage.client()).held(), "not for another client"
    shared = stage.shape.holders[0].weight < stage.shape.holders[0].capacity
    assert lock.available() == int(shared)
    info = client.inspect(stage.name)
    assert info.available == {"semaphore": 1, "mutex": 0}.get(lock.terms.kind)
    others = [stage.take(stage.holder(stage.client(), part)) for part in range(1, len(stage.shape.holders))]
    waiting = stage.waiting(stage.newcomer(stage.client()))
    assert lock.available() == 0, "a new claim would stand behind the one that waits"
    mine.release()
    assert not lock.held()
    for lease in others:
        lease.release()
    waiting.result().release()
    assert lock.available() == most


@scenario("S1-inspect")
def inspect(stage: Stage) -> None:
    """``inspect`` shows holders and waiters in order, with their owners, and never a token."""
    clients = [stage.client(task=f"job-{at}") for at in range(len(stage.shape.holders))]
    leases = stage.fill(clients, ttl=stage.harness.ttl, note={"why": "kit"})
    waiting = stage.waiting(stage.newcomer(stage.client()))
    info = stage.client().inspect(stage.name)
    assert [claim.claim_id for claim in info.holders] == [lease.claim_id for lease in leases]
    assert [claim.fence for claim in info.holders] == [lease.fence for lease in leases]
    assert [claim.owner.task for claim in info.holders] == [client.owner.task for client in clients]
    assert len(info.waiters) == 1
    assert [claim.position for claim in info.claims] == list(range(len(info.claims)))
    head = info.holders[0]
    assert head.owner.pid == clients[0].owner.pid
    assert head.note == {"why": "kit"}
    assert head.ttl == stage.harness.ttl
    assert all(claim.layout >= 1 for claim in info.claims), "each claim says in which layout it is stored"
    assert abs(head.since - stage.harness.clock.wall()) < 5.0
    assert (head.deadline is not None, head.renewed > 0) == (stage.harness.tells,) * 2
    if head.deadline is not None:
        assert abs(head.deadline - head.renewed - stage.harness.ttl) < 0.1
    for lease in leases:
        assert lease.token not in repr(info)
        assert lease.token not in repr(lease)
        lease.release()
    waiting.result().release()
    assert stage.client().inspect(stage.name).claims == ()


@scenario("S1-notes-and-records", None)
def notes(stage: Stage) -> None:
    """Notes of a claim reach its holder, within their limit; records outlive claims and are versioned."""
    client, other = stage.client(), stage.client()
    lease = stage.take(stage.holder(client, ttl=stage.lasting(), note={"a": 1, "b": 2}))
    assert other.annotate(stage.name, lease.claim_id, {"b": None, "ask_release": True})
    assert not other.annotate(stage.name, "0" * 12, {"b": None})
    stage.until(lambda: lease.requests.get("ask_release") is True, "the holder is told")
    assert other.inspect(stage.name).holders[0].note == {"a": 1, "ask_release": True}
    huge = {"x": "y" * NOTE_LIMIT}
    assert isinstance(
        stage.work(lambda: other.annotate(stage.name, lease.claim_id, huge)).error(), ConfigError
    )
    assert client.record(stage.name) is None
    assert other.put_record(stage.name, {"last": "kit"}, 0).version == 1
    assert isinstance(stage.work(lambda: client.put_record(stage.name, {}, 0)).error(), Conflict)
    assert client.put_record(stage.name, {"last": "again"}, 1).version == 2
    lease.release()
    record = other.record(stage.name)
    assert record is not None
    assert (record.value, record.version) == ({"last": "again"}, 2)


@scenario("S7-errors-pickle", None)
def errors_pickle(stage: Stage) -> None:
    """Errors cross processes with the name of the lock and its holder."""
    stage.fill()
    client = stage.client()
    client.inspect(stage.name)  # connected before the short wait, which includes connecting
    error = stage.work(lambda: stage.newcomer(client).acquire(IN_VAIN)).error()
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(copy, AcquireTimeout)
    assert isinstance(error, AcquireTimeout)
    assert (copy.name, copy.holder, str(copy)) == (error.name, error.holder, str(error))


@scenario("S2-turns", None)
def turns(stage: Stage) -> None:
    """Five workers take turns: all are served, no two at once."""
    inside, order, overlap = threading.Lock(), list[int](), list[int]()

    def play(worker: int) -> None:
        lock = stage.holder(stage.client())
        for _ in range(5):
            with lock.acquire(20.0) as lease:
                if not inside.acquire(blocking=False):
                    overlap.append(worker)
                else:
                    order.append(lease.fence)
                    lease.ensure_held()
                    inside.release()

    works = [stage.work(lambda worker=worker: play(worker)) for worker in range(5)]  # type: ignore[misc]
    for work in works:
        work.result(30.0)
    assert overlap == []
    assert len(order) == 25
    assert order == sorted(set(order)), "S4: fences in the order of the grants"
