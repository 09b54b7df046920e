"""Deadlocks among threads or tasks of any process and host: each holds what another one waits for.

A waiting claim says in its note which claims its thread or task holds (:class:`WaitFacts`). So an edge joins
claims of one thread or task, never of one process. A detached lease, which its taker need not release, makes
no edge. A claim that says nothing, of an older lockkit for instance, may go away at any time.

Looks are not atomic: each reads one queue after the other. So only findings of two looks count. Between the
two, all of it was there at one time; and a deadlock does not go away by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lockkit.errors import DeadlockDetected, LockkitError
from lockkit.facts import ClaimInfo, Deadlock, LockInfo
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.noted import RESERVED
from lockkit.protocol.effects import Annotate, Effect, Inspect, ListNames, Now
from lockkit.store.spi import Claim, Refused, Unknown
from lockkit.values.names import claim_id

__all__ = ["BETWEEN", "KEY", "Look", "Search", "WaitFacts", "error", "look"]

KEY = "waits"
"""The key, below lockkit's own key of a note, for the claims that a waiter's thread or task holds."""
BETWEEN = 2.0
"""Seconds between two looks that must find the same."""
_BEFORE_TELLING = 1.0
"""Seconds of waiting after which a claim says what its thread or task holds. Shorter waits cost nothing."""
_MOST_NAMES = 1000
"""The number of names up to which a waiting thread looks at all of them."""
_MOST_HOLDS = 64
"""The number of held claims that a note names. Fewer edges hide a deadlock, and never make one up."""
_LONGEST = 15.0
"""Most seconds between two looks of a waiting thread; they double after each look in vain."""


class WaitFacts(NamedTuple):
    """Facts in a waiting claim about its thread or task.

    Attributes:
        holds: The ids of the claims that the thread or task holds, and releases only after this wait.
        group: The name of the acquisition, if it waits in several queues at once; else the claim id.
        of: The number of claims of the acquisition.
        needs: How many of them have to be granted.
        detects: Whether the wait ends with an error if it is part of a deadlock.
    """

    holds: frozenset[str]
    group: str
    of: int = 1
    needs: int = 1
    detects: bool = False

    @property
    def matters(self) -> bool:
        """Whether a look could use it."""
        return self.detects or bool(self.holds)

    def patch(self) -> dict[str, object]:
        """The note of a claim, as a merge patch."""
        waits: dict[str, object] = {"holds": sorted(self.holds)[:_MOST_HOLDS]}
        waits["group"] = {"id": self.group, "of": self.of, "needs": self.needs} if self.of > 1 else None
        waits["detects"] = self.detects or None
        return {RESERVED: {KEY: waits}}

    @classmethod
    def of_claim(cls, claim: ClaimInfo) -> WaitFacts | None:
        """Read the facts in a claim; None if it has none, or none that can be understood."""
        own = claim.note.get(RESERVED)
        waits = own.get(KEY) if isinstance(own, Mapping) else None
        if not isinstance(waits, Mapping):
            return None
        holds, group = waits.get("holds"), waits.get("group")
        if not isinstance(holds, Sequence) or isinstance(holds, str):
            return None
        held = frozenset(one for one in holds if isinstance(one, str))
        detects = waits.get("detects") is True
        if group is None:
            return cls(held, claim.claim_id, detects=detects)
        if not isinstance(group, Mapping):
            return None
        name, of, needs = group.get("id"), group.get("of"), group.get("needs")
        if not isinstance(name, str) or type(of) is not int or type(needs) is not int or not 1 <= needs <= of:
            return None
        return cls(held, name, of, needs, detects)


class _Stuck(NamedTuple):
    """A claim that may be stuck: the fields that two looks must find alike."""

    name: str
    claim_id: str
    waits: bool
    fence: int
    weight: int
    capacity: int
    facts: WaitFacts | None


class Look(NamedTuple):
    """The result of a look.

    Attributes:
        deadlocks: The deadlocks; they count once a second look has confirmed them.
        stuck: The claims that can neither be granted nor go away.
    """

    deadlocks: tuple[Deadlock, ...]
    stuck: frozenset[_Stuck]


def look(queues: Iterable[LockInfo], before: Collection[_Stuck] | None = None) -> Look:
    """Find the deadlocks in the queues of a namespace.

    Args:
        queues: The queues, read one after the other.
        before: The claims that were stuck at an earlier look, to be found unchanged; None at the first look.
    """
    infos: dict[_Stuck, ClaimInfo] = {}
    lines: list[list[_Stuck]] = []
    for queue in queues:
        line: list[_Stuck] = []
        # Else a claim may be withdrawn by its owner.
        alike = len({claim.capacity for claim in queue.claims}) <= 1
        for claim in queue.claims:
            one = _candidate(claim)
            if alike and one is not None and (before is None or one in before):
                infos[one] = claim
                line.append(one)
        lines.append(line)
    stuck = _stuck(lines)
    deadlocks = [
        _told(knot, infos)
        for knot in _knots(stuck)
        # Waiters that also wait for another deadlock are no deadlock of their own: they go on when it ends.
        if knot
        <= {one for line in _stuck([[one for one in line if one in knot] for line in stuck]) for one in line}
    ]
    return Look(tuple(deadlocks), frozenset(one for line in stuck for one in line))


def _candidate(claim: ClaimInfo) -> _Stuck | None:
    """The claim, if it can be stuck: it holds, or it waits and says for whom. Others may go away."""
    if claim.evicted or claim.state not in ("HELD", "WAITING"):
        return None
    if claim.state == "WAITING" and claim.process == "gone":  # it lapses
        return None
    waits = claim.state == "WAITING"
    facts = WaitFacts.of_claim(claim) if waits else None
    if waits and facts is None:
        return None
    return _Stuck(claim.name, claim.claim_id, waits, claim.fence, claim.weight, claim.capacity, facts)


def _groups(lines: Iterable[Iterable[_Stuck]]) -> dict[str, list[_Stuck]]:
    """The waiting claims of each acquisition."""
    groups: dict[str, list[_Stuck]] = {}
    for line in lines:
        for one in line:
            if one.facts is not None:
                groups.setdefault(one.facts.group, []).append(one)
    return groups


def _stuck(lines: list[list[_Stuck]]) -> list[list[_Stuck]]:
    """The largest set of the given claims that stay even if all others are granted and go away.

    - A claim holds only together with all claims ahead of it. So a waiting claim is stuck if it does not fit
      beside those ahead of it that are stuck.
    - An acquisition that waits in several queues is stuck if too few of its claims are not.
    - A held claim is stuck if an acquisition is that has to end before it is released.
    """
    while True:
        kept = [list(_not_fitting(line)) for line in lines]
        held: set[str] = set()
        hopeful: set[str] = set()
        for group, members in _groups(kept).items():
            facts = members[0].facts
            assert facts is not None
            if len(members) > facts.of - facts.needs:
                held |= facts.holds
            else:
                hopeful.add(group)
        kept = [
            [
                one
                for one in line
                if (one.claim_id in held if one.facts is None else one.facts.group not in hopeful)
            ]
            for line in kept
        ]
        if kept == lines:
            return kept
        lines = kept


def _not_fitting(line: Iterable[_Stuck]) -> Iterator[_Stuck]:
    ahead = 0
    for one in line:
        if not one.waits or ahead + one.weight > one.capacity:
            ahead += one.weight
            yield one


def _knots(stuck: list[list[_Stuck]]) -> list[frozenset[_Stuck]]:
    """The claims of each set of acquisitions that wait for each other, with the held claims they wait for."""
    groups = _groups(stuck)
    holders: dict[str, set[str]] = {}
    for group, members in groups.items():
        for one in members:
            assert one.facts is not None
            for held in one.facts.holds:
                holders.setdefault(held, set()).add(group)
    after: dict[str, set[str]] = {group: set() for group in groups}
    for line in stuck:
        ahead: set[str] = set()
        for one in line:
            if one.facts is None:
                ahead |= holders.get(one.claim_id, set())
            else:
                after[one.facts.group] |= ahead
                ahead = ahead | {one.facts.group}
    knots = []
    for together in _components(after):
        if len(together) == 1 and not any(group in after[group] for group in together):
            continue
        chosen = {
            one
            for line in stuck
            for one in line
            if (
                one.facts.group in together
                if one.facts is not None
                else not holders.get(one.claim_id, set()).isdisjoint(together)
            )
        }
        knots.append(frozenset(chosen))
    return knots


def _components(after: Mapping[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of a graph (Kosaraju and Sharir)."""
    order: list[str] = []
    seen: set[str] = set()
    for start in sorted(after):
        _visit(start, after, seen, order)
    before: dict[str, set[str]] = {node: set() for node in after}
    for node, following in after.items():
        for one in following:
            before[one].add(node)
    seen = set()
    found = []
    for start in reversed(order):
        component: list[str] = []
        _visit(start, before, seen, component)
        if component:
            found.append(set(component))
    return found


def _visit(start: str, after: Mapping[str, set[str]], seen: set[str], order: list[str]) -> None:
    """Add the unseen nodes that can be reached from a node, each after all that it leads to."""
    if start in seen:
        return
    seen.add(start)
    path = [(start, iter(sorted(after[start])))]
    while path:
        node, rest = path[-1]
        following = next((one for one in rest if one not in seen), None)
        if following is None:
            order.append(node)
            path.pop()
        else:
            seen.add(following)
            path.append((following, iter(sorted(after[following]))))


def _told(knot: frozenset[_Stuck], infos: Mapping[_Stuck, ClaimInfo]) -> Deadlock:
    waiting = sorted((one for one in knot if one.waits), key=lambda one: one.claim_id)
    held = sorted((one for one in knot if not one.waits), key=lambda one: (one.name, one.fence))
    detecting = [one for one in waiting if one.facts is not None and one.facts.detects]
    holds = {
        one.claim_id: tuple(other.claim_id for other in held if other.claim_id in one.facts.holds)
        for one in waiting
        if one.facts is not None
    }
    return Deadlock(
        tuple(infos[one] for one in waiting),
        tuple(infos[one] for one in held),
        holds,
        detecting[-1].claim_id if detecting else "",
    )


class Search:
    """The part of a wait that publishes what its thread or task holds, and looks for deadlocks.

    Args:
        claim: The claim, which is in the queue.
        facts: The facts to publish at the start.
        start: CLOCK_BOOTTIME seconds at which the wait started.

    Attributes:
        due: CLOCK_BOOTTIME seconds at which to go on.
    """

    __slots__ = ("_before", "_pause", "_told", "claim", "due")

    def __init__(self, claim: Claim, facts: WaitFacts, start: float) -> None:
        self.claim = claim
        self._told: WaitFacts | None = None
        self._before: frozenset[_Stuck] | None = None
        self._pause = BETWEEN
        self.due = start + _BEFORE_TELLING if facts.matters else math.inf

    @property
    def claim_id(self) -> str:
        """The public identifier of the claim."""
        return claim_id(self.claim.token)

    def steps(
        self, now: Now, budget: Callable[[float], float], telling: Callable[[], WaitFacts]
    ) -> Generator[Effect, Any, Deadlock | None]:
        """Publish new facts, and look for a deadlock, if it is time. Failures are left to the next look.

        Args:
            now: CLOCK_BOOTTIME seconds.
            budget: Seconds that a request may take.
            telling: Returns the facts to publish now.

        Returns:
            The deadlock that this wait is to end.
        """
        at = now()
        if self._told is None and at < self.due:
            return None
        facts = telling()
        if self._told is not None and facts != self._told:  # a lease was detached: publish at once
            self._told, self.due = None, at
        if at < self.due:
            return None
        if self._told is None:
            self.due = at + _BEFORE_TELLING
            try:
                yield Annotate(self.claim.terms.name, self.claim_id, facts.patch(), budget(at))
            except (Refused, Unknown):
                return None
            except LockkitError:  # the note is full, or the store has no notes
                self.due = math.inf
                return None
            self._told = facts
        if not facts.detects:
            self.due = math.inf
            return None
        return (yield from self._looks(now, budget))

    def _ends(self, deadlock: Deadlock) -> bool:
        """Whether this wait is the one that has to end."""
        return deadlock.ends == self.claim_id

    def _looks(self, now: Now, budget: Callable[[float], float]) -> Generator[Effect, Any, Deadlock | None]:
        before, self._before = self._before, None
        found: Look | None = None
        try:
            queues: list[LockInfo] = []
            names = yield ListNames(budget(now()))
            if len(names) <= _MOST_NAMES:
                for name in names:
                    queue = yield Inspect(name, budget(now()))
                    queues.append(queue)
                found = look(queues, before)
        except (Refused, Unknown):
            pass
        mine = next((one for one in found.deadlocks if self._ends(one)), None) if found else None
        if mine is not None and before is not None:
            return mine
        if found is not None and found.deadlocks:
            self._before = found.stuck
            self._pause = BETWEEN
        self.due = now() + self._pause
        self._pause = min(2 * self._pause, _LONGEST)
        return None


def error(claim: Claim, deadlock: Deadlock, who: str) -> DeadlockDetected:
    """The error for a wait that is part of a deadlock.

    Args:
        claim: The claim that waits.
        deadlock: The deadlock.
        who: "thread" or "task", for the message.
    """
    name = claim.terms.name
    return DeadlockDetected(
        f"this {who} waits for {name!r} in a deadlock: {deadlock}",
        name=name,
        holder=next((held for held in deadlock.holders if held.name == name), None),
        hint="release what you hold and begin again; "
        "take together what you need together: client.all_of([...])",
    )
