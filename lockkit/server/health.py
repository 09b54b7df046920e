"""The health of a store: every check adds reasons, and the worst reason is the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from lockkit.errors import LockkitError
from lockkit.observe import journal
from lockkit.observe.checks import Case, CheckContext
from lockkit.observe.decisions import Tiers
from lockkit.observe.oracles import Oracles
from lockkit.server.documents import HealthReason, StoreHealth, Verdict
from lockkit.values.names import STANDING
from lockkit.views import making

if TYPE_CHECKING:
    from lockkit.facts import Finding
    from lockkit.sync.client import Client
    from lockkit.views.looking import Look

__all__ = ["VERDICTS", "failures", "health", "worst"]

VERDICTS: Final[tuple[Verdict, ...]] = ("healthy", "warning", "unhealthy")
"""The verdicts, the best first."""
_SHOWN = 20
"""The most claims of one kind that are listed one by one."""
_OF_FINDING: Final[dict[str, Verdict]] = {"ok": "healthy", "warning": "warning", "error": "unhealthy"}
_RIGHTS = "rights"
"""The check of what the login may do. One that may only look is enough for a server that only shows."""
_OF_CASE: Final[dict[str, Verdict]] = {
    "gone": "unhealthy",
    "survivors": "unhealthy",
    "silent": "warning",
    "overdue": "warning",
}
"""A hold whose owner is dead is a zombie, and so is one under which processes of a dead owner work on."""
_ZOMBIES = ("gone", "survivors")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of some verdicts; healthy if there are none. No verdict makes another one better."""
    return VERDICTS[max(map(VERDICTS.index, verdicts), default=0)]


def health(identity: str, client: Client, look: Look | LockkitError) -> StoreHealth:
    """Check one store, by its locks or the error of reading them."""
    reasons: list[HealthReason] = []
    cases: list[Case] = []
    reachable = not isinstance(look, LockkitError)
    if isinstance(look, LockkitError):
        reasons.append(HealthReason("unhealthy", "store", look.message, look.hint))
    else:
        cases = [*_cases(client, look)]
        reasons += _claims(cases)
        reasons += [
            HealthReason("warning", "unread", f"{name!r} cannot be read: {error.message}", error.hint, name)
            for name, error in look.unread.items()
        ]
        reasons += _checked(client)
    reasons += [_of_finding(one) for one in client.check_plugins() if one.severity != "ok"]
    failed = len(failures(client))
    if failed:
        told = "1 release" if failed == 1 else f"{failed} releases"
        reasons.append(
            HealthReason(
                "warning", "failures", f"{told} got no definite answer", "see: lockkit failures list"
            )
        )
    return StoreHealth(
        id=identity,
        store=making.store(client),
        status=worst(one.verdict for one in reasons),
        reachable=reachable,
        zombies=sum(case.kind in _ZOMBIES for case in cases),
        old_holds=sum(case.kind not in _ZOMBIES for case in cases),
        failures=failed,
        reasons=sorted(reasons, key=lambda one: -VERDICTS.index(one.verdict)),
        counters=dict(client.stats()) if client.is_open else {},
    )


def _cases(client: Client, look: Look) -> Iterator[Case]:
    """Recovery's judgement of each hold, without oracles: a health check asks no other service."""
    config = client.config
    context = CheckContext(
        client, Tiers(config.age_warning, config.age_soft, config.age_hard), Oracles((), 0.0)
    )
    for info in look.locks:
        if info.name in STANDING:
            continue
        for claim in info.holders:
            case = context.case(claim, info.read_at)
            if case is not None:
                yield case


def _claims(cases: Sequence[Case]) -> Iterator[HealthReason]:
    """A reason for each hold, up to a limit, and one for the rest of each kind."""
    for kind, verdict in _OF_CASE.items():
        found = [case for case in cases if case.kind == kind]
        check = "zombies" if kind in _ZOMBIES else "old_holds"
        for case in found[:_SHOWN]:
            hint = "see: lockkit recover" if check == "zombies" else None
            yield HealthReason(
                verdict, check, f"{case.name!r}: {case.why}", hint, case.name, case.claim_id or None
            )
        if len(found) > _SHOWN:
            yield HealthReason(
                verdict, check, f"{len(found) - _SHOWN} more holds like these", "see: lockkit recover"
            )


def _checked(client: Client) -> list[HealthReason]:
    """The findings of the store's own checks, if it answers."""
    try:
        return [_of_finding(one) for one in client.check_store() if one.severity != "ok"]
    except LockkitError as error:
        return [HealthReason("unhealthy", "store", error.message, error.hint)]


def _of_finding(found: Finding) -> HealthReason:
    verdict = "warning" if found.check == _RIGHTS else _OF_FINDING[found.severity]
    return HealthReason(verdict, found.check, found.message, found.hint or None)


def failures(client: Client, *, resolved: bool = False) -> list[dict[str, object]]:
    """The failed releases that the journal of this user on this host has of the store."""
    try:
        records = journal.read(client.config.state_place(create=False).path)
    except (OSError, LockkitError):
        return []
    here = (client.url, client.namespace)
    return [
        one
        for one in records
        if (resolved or not one.get("resolved")) and (one.get("url"), one.get("namespace")) == here
    ]
