"""Worlds worth exploring: three clients, two names, each kind of lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lockkit.store.queue import RW_CAPACITY
from lockkit.store.spi import Terms
from support.simulation.client import Plan
from support.simulation.faults import Faults
from support.simulation.onredis import OnRedis
from support.simulation.statements import Statements
from support.simulation.stores import Atomic
from support.simulation.world import Setup, World

__all__ = ["ON_REDIS", "SETUPS", "explore"]


def _mutex(name: str, ttl: float = 6.0, **more: float) -> Terms:
    return Terms(name, ttl=ttl, **more)  # type: ignore[arg-type]


def _permits(name: str, weight: int = 1, capacity: int = 2) -> Terms:
    return Terms(name, ttl=6.0, weight=weight, capacity=capacity, kind="semaphore")


def _read(name: str) -> Terms:
    return Terms(name, ttl=6.0, weight=1, capacity=RW_CAPACITY, kind="read")


def _write(name: str) -> Terms:
    return Terms(name, ttl=6.0, weight=RW_CAPACITY, capacity=RW_CAPACITY, kind="write")


def _plans() -> Mapping[str, Setup]:
    a, b = _mutex("a"), _mutex("b", 9.0)
    sem, two = _permits("a"), _permits("a", 2)
    kept = _mutex("a", 5.0, min_hold=4.0, lock_delay=3.0)
    short = _mutex("a", 4.0, max_hold=7.0)
    return {
        "mutex": Setup((
            ((Plan(a), Plan(b, 5.0)),),
            ((Plan(a), Plan(a, 3.0), Plan(a, 0)),),
            ((Plan(a, 4.0), Plan(a)), (Plan(b), Plan(b, 0))),
        )),
        "semaphore": Setup((
            ((Plan(sem),), (Plan(sem, 4.0),)),
            ((Plan(sem), Plan(two), Plan(sem, 0)),),
            ((Plan(sem, 6.0), Plan(sem)), (Plan(b),)),
        ), capacities=(1, 2, 3)),
        "rwlock": Setup((
            ((Plan(_read("a")), Plan(_write("a"))),),
            ((Plan(_read("a"), 5.0),), (Plan(_write("a"), 5.0), Plan(_read("a")))),
            ((Plan(_write("a")), Plan(_read("a"), 0)), (Plan(b),)),
        ), capacities=(RW_CAPACITY,)),
        "delays": Setup((
            ((Plan(kept), Plan(kept, 9.0)),),
            ((Plan(kept),), (Plan(b),)),
            ((Plan(kept, 5.0), Plan(kept)),),
        )),
        "max_hold": Setup((
            ((Plan(short),), (Plan(b),)),
            ((Plan(short, 3.0), Plan(short)),),
            ((Plan(short), Plan(short, 0, auto_renew=False)),),
        )),
    }  # fmt: skip


def _together() -> Mapping[str, Setup]:
    """Locks taken together, beside a thread that takes them one by one."""
    a, b, c = _mutex("a"), _read("b"), _permits("c", 2)
    writes, kept = _write("b"), _mutex("a", min_hold=4.0, lock_delay=3.0)
    gate = _mutex("gate")
    whole = tuple(_permits(name, 4, 4) for name in "xyz")
    shares = tuple(_permits(name, 3, 4) for name in "xyz")
    slices = (_permits("u", 1, 1), _permits("v", 2, 2), _permits("z", 4, 4))  # u and v stand within x
    around = (_permits("x", 1, 4), _permits("x", 2, 4), None)
    return {
        "all": Setup((
            ((Plan(a, take="all", others=(b, c)),), (Plan(a),)),
            ((Plan(c, 5.0, take="all", others=(a,)), Plan(writes, take="all", others=(c,))),),
            ((Plan(writes, take="all", others=(a,)), Plan(a, 0, take="all", others=(c,))), (Plan(c, 4.0),)),
        ), capacities=()),
        "all-kept": Setup((
            ((Plan(kept, 3.0, take="all", others=(b,)), Plan(b)),),
            ((Plan(writes, 4.0), Plan(kept, 0, take="all", others=(writes,))),),
            ((Plan(kept, 2.0), Plan(writes)), (Plan(kept, 2.0, take="all", others=(writes,)),)),
        ), capacities=()),
        "any": Setup((
            ((Plan(a, take="any", others=(writes,)),), (Plan(a),)),
            ((Plan(a, 5.0, take="any", others=(c,)), Plan(c, take="any", others=(writes, a))),),
            ((Plan(writes, take="any", others=(a,)), Plan(a, 0, take="any", others=(c,))), (Plan(b, 4.0),)),
        ), capacities=()),
        "pool": Setup((
            ((Plan(gate, take="pool", others=whole, count=2),),),
            ((Plan(gate, 6.0, take="pool", others=whole[::-1], count=2),
              Plan(gate, take="pool", others=shares)),),
            ((Plan(gate, take="pool", others=shares, count=3), Plan(gate, 0, take="pool", others=whole)),),
        ), capacities=()),
        "choosers": Setup((
            ((Plan(gate, take="pool", others=whole, count=2, chooses=True),),),
            ((Plan(gate, 6.0, take="pool", others=whole[::-1], chooses=True),
              Plan(gate, take="pool", others=shares)),),
            ((Plan(gate, take="pool", others=shares, count=2, chooses=True),
              Plan(gate, 0, take="pool", others=whole, chooses=True)),),
        ), capacities=()),
        "slices": Setup((
            ((Plan(gate, take="pool", others=slices, around=around, count=2, chooses=True),),),
            ((Plan(gate, take="pool", others=whole),
              Plan(gate, 6.0, take="pool", others=slices[:2], around=around[:2])),),
            ((Plan(gate, take="pool", others=slices, around=around, count=3),
              Plan(gate, 0, take="pool", others=slices, around=around)),),
        ), capacities=()),
    }  # fmt: skip


def _process_bound() -> Setup:
    """Claims that no silence ends. In one process nobody's death frees them, so nobody dies here."""
    bound = Terms("a", ttl=5.0, process_bound=True)
    limited = Terms("b", ttl=5.0, process_bound=True, max_hold=8.0)
    return Setup(
        (
            ((Plan(bound),), (Plan(limited),)),
            ((Plan(bound, 4.0), Plan(bound)),),
            ((Plan(bound, 0), Plan(limited, 3.0)),),
        ),
        faults=Faults(crash=0),
        label="process-bound",
    )


def _drained(setup: Setup, label: str) -> Setup:
    """A namespace that is drained now and then, for a moment: then everybody's acquires are refused."""
    return replace(setup, faults=Faults(drain=1, budget=20), label=label)


SETUPS: Mapping[str, Setup] = {
    f"{label}-{store.name}": replace(setup, label=label, store=store)
    for label, setup in (*_plans().items(), *_together().items())
    for store in (Atomic, Statements)
} | {
    "process-bound-atomic": _process_bound(),
    "drained-mutex-atomic": _drained(_plans()["mutex"], "drained-mutex"),
    "drained-semaphore-atomic": _drained(_plans()["semaphore"], "drained-semaphore"),
    "drained-all-atomic": _drained(_together()["all"], "drained-all"),
}
"""Every kind of lock on every model store, by ``kind-store``."""

ON_REDIS: Mapping[str, Setup] = {
    f"{label}-redis": replace(setup, label=label, store=OnRedis, faults=replace(setup.faults, unlearn=1))
    for label, setup in _plans().items()
} | {"drained-mutex-redis": replace(_drained(_plans()["mutex"], "drained-mutex"), store=OnRedis)}
"""Every kind of lock on the Redis store. Needs redis-server and the extra ``redis``."""


def explore(setup: Setup, schedule: bytes) -> World:
    """Run a schedule; the world as it was when it broke a promise, or came to rest."""
    world = World(setup)
    world.run(schedule)
    return world
