"""Forks: the child's handles are inert, the parent loses nothing, and the other way round."""

from __future__ import annotations

from lockkit.errors import NotHeld
from lockkit.testing.stage import NotApplicable, Stage, scenario


@scenario("S7-fork-holder")
def fork_holder(stage: Stage) -> None:
    """A holder's forked child has inert handles: not valid, no release, no goodbye; the parent holds on."""
    _inert(stage, same_pid=False)


@scenario("S7-fork-same-pid")
def fork_same_pid(stage: Stage) -> None:
    """A forked child with its parent's pid (a new pid namespace) has inert handles too, and locks afresh."""
    _inert(stage, same_pid=True)
    _afresh(stage, same_pid=True)


def _inert(stage: Stage, *, same_pid: bool) -> None:
    client = stage.client()
    ttl = stage.lasting(least=3.0)  # half of what is left of it must do for an answer
    lease = stage.take(stage.holder(client, ttl=ttl))
    before = [(row.claim_id, row.fence, row.state) for row in stage.stored()]

    def child() -> dict[str, object]:
        answers: dict[str, object] = {
            "valid": lease.valid(),
            "remaining": lease.remaining(),
            "release": lease.release().outcome,
            "leases": len(client.leases()),
        }
        try:
            lease.ensure_held()
        except NotHeld:
            answers["ensure_held"] = "NotHeld"
        client.close()
        return answers

    assert stage.in_child(child, same_pid=same_pid) == {
        "valid": False,
        "remaining": 0.0,
        "release": "KEPT",
        "leases": 0,
        "ensure_held": "NotHeld",
    }
    assert [(row.claim_id, row.fence, row.state) for row in stage.stored()] == before
    stage.steady(lease.valid, "S7: the parent lost its hold to a child", 1.2 * ttl)
    lease.confirm()
    assert lease.release().outcome == "RELEASED"


@scenario("S7-fork-then-work")
def fork_then_work(stage: Stage) -> None:
    """A forked child may use the same client: it starts afresh, and its parent's hold keeps it out."""
    if stage.harness.capabilities.scope == "process":
        raise NotApplicable("nothing of this store reaches another process")
    _afresh(stage, same_pid=False)


def _afresh(stage: Stage, *, same_pid: bool) -> None:
    client = stage.client()
    leases = stage.fill([client] * len(stage.shape.holders))
    apart = stage.harness.capabilities.scope == "process"

    def child() -> list[object]:
        busy = apart or stage.newcomer(client).try_acquire() is None
        other = stage.shape.holders[0].lock(client, "kit/child", ttl=stage.harness.ttl).acquire(2.0)
        fence = other.fence
        return [busy, other.valid(), other.release().outcome, fence > 0]

    assert stage.in_child(child, same_pid=same_pid) == [True, True, "RELEASED", True]
    for lease in leases:
        lease.confirm()


@scenario("S7-fork-child-holds")
def fork_child_holds(stage: Stage) -> None:
    """A lock that a forked child takes and leaves behind does not become its parent's."""
    if stage.harness.capabilities.scope == "process":
        raise NotApplicable("nothing of this store reaches another process")
    client = stage.client()
    stage.take(stage.shape.holders[0].lock(client, "kit/warm")).release()

    def child() -> str:
        lease = stage.holder(client, ttl=stage.harness.ttl).acquire(2.0)
        return lease.claim_id

    left = stage.in_child(child)
    assert left not in [lease.claim_id for lease in client.leases()]
    stage.harness.outlast(stage.harness.ttl + stage.harness.slack)
    stage.fill()
    assert left not in stage.held()


@scenario("S7-fork-while-waiting")
def fork_while_waiting(stage: Stage) -> None:
    """A child that is forked while its parent waits does not disturb the wait."""
    leases = stage.fill()
    waiting = stage.waiting(stage.newcomer(stage.client()))
    assert stage.in_child(lambda: [lease.valid() for lease in leases]) == [False] * len(leases)
    assert not waiting.done
    for lease in leases:
        lease.release()
    waiting.result().release()
