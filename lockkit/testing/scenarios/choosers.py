"""L4, L5: requests to a pool whose members may cease to do while it waits, or stand within one another."""

from __future__ import annotations

from collections.abc import Sequence

from lockkit.errors import ConfigError
from lockkit.notes.members import pool_name
from lockkit.testing.shapes import SEMAPHORE
from lockkit.testing.stage import NotApplicable, Stage, scenario
from lockkit.values.choosers import Choice

__all__ = ["drops"]

_EVERY = 0.05


class _Chooser:
    """A chooser that says what the scenario says.

    Attributes:
        will_do: The members that will do, the best first.
        dirty: The members that are not as they should be, once they are granted.
        never: Why the request can never be met.
        outside: Whether the request is to leave the gate.
        asked: The number of times that it was asked to choose.
    """

    every = _EVERY

    def __init__(self, *will_do: str) -> None:
        self.will_do: tuple[str, ...] = will_do
        self.dirty: set[str] = set()
        self.never: str | None = None
        self.outside = False
        self.asked = 0

    def choose(self, held: Sequence[str]) -> Choice:
        """See :class:`~lockkit.Chooser`."""
        self.asked += 1
        refused = {name: "out of order" for name in "abc" if name not in (*self.will_do, *held)}
        return Choice(self.will_do, refused, self.never, outside=self.outside)

    def judge(self, member: str) -> str | None:
        """See :class:`~lockkit.Chooser`."""
        return "dirty" if member in self.dirty else None


def _of(stage: Stage, *members: str) -> list[int]:
    """The number of claims in the queue of each member, or of the gate."""
    return [len(stage.stored(pool_name("kit", member) if member else pool_name("kit"))) for member in members]


def _heeded(stage: Stage, chooser: _Chooser) -> None:
    """Wait until the request has done all that follows from what the chooser says now."""
    asked = chooser.asked
    stage.until(lambda: chooser.asked > asked + 2, "it asks again and again")


@scenario("L4-chooser-drops", (SEMAPHORE,))
def drops(stage: Stage) -> None:
    """A request leaves the queues of members that no longer do, and joins those that do again."""
    other = stage.client().pool("kit", ["a", "b", "c"], ttl=stage.harness.ttl)
    pool = stage.client().pool("kit", ["a", "b", "c"], ttl=stage.harness.ttl)
    held = {name: stage.kept_all(other.acquire(among=[name])) for name in "abc"}
    chooser = _Chooser("a", "b")
    work = stage.work(lambda: pool.acquire(chooser=chooser, timeout=30))
    stage.until(lambda: _of(stage, "a", "b", "c") == [2, 2, 1], "it queues where it may")
    chooser.will_do = ("b", "c")
    _heeded(stage, chooser)
    assert _of(stage, "a", "b", "c") == [1, 2, 2], "L4: it left the queue of a, and joined that of c"
    chooser.will_do = ()
    _heeded(stage, chooser)
    assert _of(stage, "a", "b", "c") == [1, 1, 1], "L4: it waits in no queue"
    held["a"].release()
    chooser.will_do = ("a",)
    leases = work.result()
    assert leases.members == ("a",)
    assert _of(stage, "", "b", "c") == [0, 1, 1], "L4: nothing else is left"
    leases.release()


@scenario("L4-chooser-judges", (SEMAPHORE,))
def judges(stage: Stage) -> None:
    """A member that is not as it should be after its grant is given back, and another one taken."""
    pool = stage.client().pool("kit", ["a", "b", "c"], ttl=stage.harness.ttl)
    chooser = _Chooser("a", "b")
    chooser.dirty = {"a"}
    with pool.acquire(chooser=chooser, timeout=30) as leases:
        assert leases.members == ("b",)
        assert _of(stage, "", "a", "b") == [0, 0, 1], "L4: the other one was given back"
    chooser.dirty = {"a", "b"}
    assert pool.try_acquire(chooser=chooser) is None
    assert _of(stage, "", "a", "b") == [0, 0, 0]
    work = stage.work(lambda: pool.acquire(chooser=chooser, timeout=30))
    _heeded(stage, chooser)
    assert not work.done
    chooser.dirty = {"a"}
    work.result().release()
    stage.until(lambda: _of(stage, "", "a", "b") == [0, 0, 0], "L4: nothing is left")


@scenario("L4-chooser-judges-again", (SEMAPHORE,))
def judges_again(stage: Stage) -> None:
    """A member that a request got while it waited for another is judged again before both are handed over."""
    pool = stage.client().pool("kit", ["a", "b", "c"], ttl=stage.harness.ttl)
    other = stage.client().pool("kit", ["a", "b", "c"], ttl=stage.harness.ttl)
    held = {name: stage.kept_all(other.acquire(among=[name])) for name in "bc"}
    chooser = _Chooser("a", "b", "c")
    work = stage.work(lambda: pool.acquire(2, chooser=chooser, timeout=30))
    stage.until(lambda: _of(stage, "a", "b", "c") == [1, 2, 2], "it has a, and waits for another")
    chooser.dirty = {"a"}
    held["b"].release()
    stage.until(lambda: _of(stage, "a", "b", "c") == [0, 1, 2], "L4: a was given back")
    assert not work.done
    held["c"].release()
    leases = work.result()
    assert set(leases.members) == {"b", "c"}
    leases.release()


@scenario("L5-chooser-outside", (SEMAPHORE,))
def outside(stage: Stage) -> None:
    """A request that free members could not meet keeps nothing, delays nobody, and queues again later."""
    pools = [stage.client().pool("kit", ["a", "b", "c"], ttl=stage.harness.ttl) for _ in range(2)]
    held = pools[1].acquire(among=["c"])
    chooser = _Chooser("a", "b", "c")
    work = stage.work(lambda: pools[0].acquire(3, chooser=chooser, timeout=60))
    stage.until(lambda: _of(stage, "", "a", "b") == [1, 1, 1], "it has two members, and waits for the third")
    chooser.outside = True
    stage.until(
        lambda: _of(stage, "", "a", "b", "c") == [0, 0, 0, 1], "L5: it has left the gate, and gives all back"
    )
    with pools[1].acquire(2, timeout=30) as others:
        assert set(others.members) == {"a", "b"}
        assert not work.done
    chooser.outside = False
    stage.until(lambda: _of(stage, "", "a", "b") == [1, 1, 1], "it queues again")
    held.release()
    leases = work.result()
    assert set(leases.members) == {"a", "b", "c"}
    leases.release()


@scenario("L5-chooser-at-the-gate", (SEMAPHORE,))
def at_the_gate(stage: Stage) -> None:
    """A request for which no member will do now keeps its place at the gate; an impossible one leaves it."""
    pools = [stage.client().pool("kit", ["a", "b", "c"], ttl=stage.harness.ttl) for _ in range(2)]
    chooser = _Chooser()
    first = stage.work(lambda: pools[0].acquire(chooser=chooser, timeout=30))
    stage.until(lambda: chooser.asked > 1, "it asks again")
    second = stage.work(lambda: pools[1].acquire(timeout=30))
    stage.until(lambda: _of(stage, "", "a", "b") == [2, 0, 0], "L5: the other one waits behind it")
    assert pools[1].try_acquire() is None
    chooser.never = "there is none"
    error = first.error()
    assert isinstance(error, ConfigError), error
    second.result().release()
    stage.until(lambda: _of(stage, "", "a", "b") == [0, 0, 0], "L4: nothing is left")


@scenario("L4-half-a-candidate", (SEMAPHORE,))
def half_a_candidate(stage: Stage) -> None:
    """A member within another takes two claims: one is held while the other waits, or returned if unused."""
    if not stage.harness.capabilities.shared:
        raise NotApplicable("no semaphores")
    members, within = {"card": 2, "a": 1, "b": 1, "other": 2}, {"a": "card", "b": "card"}
    pools = [stage.client().pool("kit", members, within=within, ttl=stage.harness.ttl) for _ in range(2)]
    held = stage.kept_all(pools[1].acquire(2, among=["card", "other"]))
    work = stage.work(lambda: pools[0].acquire(among=["a", "other"], timeout=30))
    stage.until(
        lambda: _of(stage, "a", "card", "other") == [1, 2, 2], "it has a half, and waits for the other half"
    )
    held[1].release()
    leases = work.result()
    assert leases.members == ("other",)
    assert _of(stage, "", "a", "card", "other") == [0, 0, 1, 1], "L4: no half is left"
    leases.release()
    held[0].release()
    with pools[0].acquire(2, among=["a", "b"], timeout=30) as leases:
        assert leases.members == ("a", "b")
        assert _of(stage, "a", "b", "card") == [1, 1, 2]
        assert pools[1].try_acquire(among=["card"]) is None
    assert _of(stage, "", "a", "b", "card") == [0, 0, 0, 0]
