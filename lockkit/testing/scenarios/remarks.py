"""News in the note of a claim: the reason, the progress, and requests to release."""

from __future__ import annotations

from lockkit.errors import AcquireTimeout, ConfigError, NotHeld
from lockkit.facts import Progress, ReleaseRequest
from lockkit.testing.scenarios.handoffs import IN_VAIN
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import PATIENCE, Stage, scenario

__all__ = ["asked", "progress", "reason"]


@scenario("S1-reason", (MUTEX,))
def reason(stage: Stage) -> None:
    """The reason of an acquire is in the claim, beside the user's note, and in the errors of its waiters."""
    client, other = stage.client(), stage.client()
    lock = stage.holder(client, note={"mine": 1}, reason="nightly reindex")
    lease = stage.take(lock)
    head = other.inspect(stage.name).holders[0]
    assert head.reason == "nightly reindex"
    assert head.note["mine"] == 1
    newcomer = stage.newcomer(other)
    for wait in (0, IN_VAIN):
        error = stage.work(lambda wait=wait: newcomer.acquire(wait)).error()  # type: ignore[misc]
        assert isinstance(error, AcquireTimeout)
        assert "nightly reindex" in str(error), error
    lease.release()
    with lock.acquire(0, reason="by hand"):
        head = other.inspect(stage.name).holders[0]
        assert (head.reason, head.note["mine"]) == ("by hand", 1)
    with lock.acquire(0, note={}):
        assert other.inspect(stage.name).holders[0].reason == "nightly reindex"
    for bad in ("", " ", "two\nlines", "x" * 201, 7):
        refused = stage.work(lambda bad=bad: lock.acquire(0, reason=bad)).error()  # type: ignore[misc]
        assert isinstance(refused, ConfigError), bad
    refused = stage.work(lambda: lock.acquire(0, note={"lockkit": {}})).error()
    assert isinstance(refused, ConfigError)


@scenario("S1-progress", None)
def progress(stage: Stage) -> None:
    """``beat`` shows the last progress after a renewal, and disturbs neither renewals nor the user's note."""
    client, other = stage.client(), stage.client()
    lease = stage.take(stage.holder(client, ttl=stage.lasting(3, least=3.0), note={"mine": 1}, reason="kit"))

    def shown() -> Progress | None:
        head = other.inspect(stage.name).holders[0]
        assert (head.note["mine"], head.reason) == (1, "kit")
        return head.progress

    # A store without notes skips this scenario.
    assert other.annotate(stage.name, lease.claim_id, {"mine": 2})
    assert other.annotate(stage.name, lease.claim_id, {"mine": 1})
    assert shown() is None
    lease.beat(0.1, "first")
    lease.beat(progress=0.4, message="epoch 4/10")
    stage.until(lambda: (told := shown()) is not None and told[:2] == (0.4, "epoch 4/10"), "it is shown")
    lease.beat(1)
    stage.until(lambda: (told := shown()) is not None and told[:2] == (1.0, ""), "the next one replaces it")
    least = lease.remaining()

    def renewed() -> bool:
        nonlocal least
        before, left = least, lease.remaining()
        # The remaining time falls until the next renewal, and may have been at its highest just now.
        least = min(least, left)
        return left > before

    stage.until(renewed, "it is renewed as before")
    for bad in (float("nan"), -0.1, 1.1, True, "0.5"):
        refused = stage.work(lambda bad=bad: lease.beat(bad)).error()  # type: ignore[misc]
        assert isinstance(refused, ConfigError), bad
    for words in ("", "x" * 201, "two\nlines"):
        refused = stage.work(lambda words=words: lease.beat(message=words)).error()  # type: ignore[misc]
        assert isinstance(refused, ConfigError), words
    assert isinstance(stage.work(lease.beat).error(), ConfigError)
    lease.release()
    assert isinstance(stage.work(lambda: lease.beat(0.5)).error(), NotHeld)


@scenario("S1-asked")
def asked(stage: Stage) -> None:
    """A holder asked to release learns who asks and why, once per request, and holds on; nobody else does."""
    leases = stage.fill(ttl=stage.lasting(3, least=3.0))
    other = stage.client()
    lease, rest = leases[0], leases[1:]
    told: list[ReleaseRequest] = []
    lease.on_release_requested(told.append)
    assert not lease.release_requested.is_set()
    first = other.ask_release(stage.name, lease.claim_id, "the card is needed")
    assert lease.release_requested.wait(PATIENCE), "the holder learns of it"
    stage.until(lambda: told == [first], "its callback is called")
    assert lease.release_requests == (first,)
    assert (first.by, first.reason) == (str(other.owner), "the card is needed")
    late: list[ReleaseRequest] = []
    lease.on_release_requested(late.append)
    stage.until(lambda: late == [first], "a callback that comes later is called, too")
    second = other.ask_release(stage.name, lease.claim_id, "maintenance")
    stage.until(lambda: told == [first, second], "another reason does not replace the first")
    assert other.inspect(stage.name).holders[0].release_requests == (first, second)
    assert lease.valid()
    assert not any(each.release_requested.is_set() for each in rest)

    waiting = stage.waiting(stage.newcomer(stage.client()))
    queued = other.inspect(stage.name).waiters[0].claim_id
    error = stage.work(lambda: other.ask_release(stage.name, queued, "please")).error()
    assert isinstance(error, NotHeld), "a waiter holds nothing"
    assert lease.claim_id in str(error)
    error = stage.work(lambda: other.ask_release(stage.name, "0" * 12, "please")).error()
    assert isinstance(error, NotHeld), "a claim that is gone"
    assert lease.claim_id in str(error)
    assert isinstance(
        stage.work(lambda: other.ask_release(stage.name, lease.claim_id, " ")).error(), ConfigError
    )
    for each in leases:
        each.release()
    waiting.result().release()
