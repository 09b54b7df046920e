"""The checks of recovery: each yields the cases that it finds. A new one is a function in :data:`CHECKS`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from lockkit.errors import BackendUnavailable, LockkitError, OutcomeUnknown
from lockkit.facts import NOTHING, ClaimInfo, LockInfo
from lockkit.hooks import of_gpus
from lockkit.lib.namedtuples import NamedTuple
from lockkit.observe import decisions, journal
from lockkit.observe.decisions import ClaimFacts, Decision, Tiers
from lockkit.observe.survivors import hidden, survivors

if TYPE_CHECKING:
    from lockkit.observe.oracles import Oracles
    from lockkit.sync.client import Client

__all__ = ["CHECKS", "Case", "Check", "CheckContext"]


class Case(NamedTuple):
    """One thing that a check has found.

    Attributes:
        kind: ``gone``, ``silent``, ``overdue``, ``survivors``, ``failure`` or ``card``.
        action: The action that is allowed: remove, evict, resolve, fix, or only tell (report the case).
        why: The reason, in words.
        seen: The facts, for the audit record.
        record: The id of a failed release.
        fix: A check's own action, with its outcome in a word. It compares what it changes with ``seen``.
        again: The second look of a check of this host alone: the case as it is some time later; None if it is
            over. All recoverers fix such a case, elected or not, because other hosts cannot see this one.
    """

    kind: str
    action: Literal["remove", "evict", "resolve", "fix", "tell"]
    name: str
    why: str
    claim: ClaimInfo | None = None
    tier: decisions.Tier = ""
    seen: Mapping[str, object] = NOTHING
    record: str = ""
    fix: Callable[[], str] | None = None
    again: Callable[[], Case | None] | None = None

    @property
    def claim_id(self) -> str:
        return self.claim.claim_id if self.claim is not None else ""

    @property
    def fence(self) -> int | None:
        return None if self.claim is None else self.claim.fence


class CheckContext:
    """One look at a namespace: what every check needs.

    Args:
        client: The client.
        tiers: The ages of the configuration.
        oracles: The oracles of the plugins.
        besides: Names to leave out.

    Attributes:
        unread: Locks that could not be read, with the reason.
    """

    def __init__(
        self, client: Client, tiers: Tiers, oracles: Oracles, *, besides: Collection[str] = ()
    ) -> None:
        self.client = client
        self.tiers = tiers
        self.unread: list[tuple[str, LockkitError]] = []
        self._oracles = oracles
        self._besides = besides

    def queues(self) -> Iterator[LockInfo]:
        """Every queue of the namespace that can be read."""
        for name in self.client.names():
            if name in self._besides:
                continue
            info = self.queue(name)
            if info is not None:
                yield info

    def queue(self, name: str) -> LockInfo | None:
        """The queue of a name; None if this user or this version cannot read it, which is remembered."""
        try:
            return self.client.inspect(name)
        except (BackendUnavailable, OutcomeUnknown):
            raise
        except LockkitError as error:
            if all(known != name for known, _ in self.unread):
                self.unread.append((name, error))
            return None

    def see(self, claim: ClaimInfo, at: float) -> ClaimFacts:
        """All that can be seen of one claim."""
        answers = [decisions.answer_of_this_host(claim)]
        if decisions.asks_oracles(claim, at):
            answers += self._oracles.ask(claim.owner)
        if decisions.life(answers) is not False or claim.process != "gone":
            return ClaimFacts(claim, at, tuple(answers))
        return ClaimFacts(
            claim, at, tuple(answers), survivors(claim.claim_id, besides=claim.owner.pid), hidden(claim.owner)
        )

    def case(self, claim: ClaimInfo, at: float) -> Case | None:
        """The case that a claim makes, if it makes one."""
        seen = self.see(claim, at)
        decision = decisions.decide(seen, self.tiers)
        return None if decision.action == "leave" else _case(seen, decision)

    def again(self, case: Case) -> Case | None:
        """The case just before an action; None if it is over, or its claim has changed since it was seen."""
        if case.claim is None:
            return case if case.again is None else case.again()
        info = self.queue(case.name)
        claim = next((one for one in info.claims if one.claim_id == case.claim_id), None) if info else None
        if info is None or claim is None or not decisions.same_claim(case.claim, claim, case.action):
            return None
        return self.case(claim, info.read_at)


Check: TypeAlias = Callable[[CheckContext], Iterator[Case]]


def _case(seen: ClaimFacts, decision: Decision) -> Case:
    action = decision.action
    assert action != "leave"
    return Case(
        decision.kind, action, seen.claim.name, decision.why, seen.claim, decision.tier, seen.evidence
    )


def claims(look: CheckContext) -> Iterator[Case]:
    """Claims with a dead owner, without renewals, or too old; and dead owners that left processes behind."""
    for info in look.queues():
        for claim in info.claims:
            case = look.case(claim, info.read_at)
            if case is not None:
                yield case


def failures(look: CheckContext) -> Iterator[Case]:
    """Failed releases of this user on this host whose claim has gone by now, so that they are over.

    A claim that is still there is left to :func:`claims`: its process is removing it, or its owner is gone.
    """
    client = look.client
    here = (client.url, client.namespace)
    for record in journal.read(client.config.state_place(create=False).path):
        if record.get("resolved") or (record.get("url"), record.get("namespace")) != here:
            continue
        name, claim_id = str(record.get("name")), record.get("claim")
        info = look.queue(name)
        if info is not None and not any(claim.claim_id == claim_id for claim in info.claims):
            why = f"the claim {claim_id} of the release that failed at {record.get('at')} has gone"
            yield Case(
                "failure", "resolve", name, why, seen={"failure": dict(record)}, record=str(record["id"])
            )


def cards(look: CheckContext) -> Iterator[Case]:
    """Cards of this host that were quarantined without a person, and that are well again."""
    yield from of_gpus("check")(look)


CHECKS: list[Check] = [claims, failures, cards]
"""Every check, in order. A check changes nothing, and may raise what the store raises."""
