"""Looks at a store: what rules see in the claims of a namespace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from lockkit.alerts.happenings import Look, Subject
from lockkit.errors import BackendUnavailable, LockkitError, OutcomeUnknown
from lockkit.facts import ClaimInfo
from lockkit.hooks import of_gpus
from lockkit.notes.last_holds import last_hold
from lockkit.store.judging import NOBODY
from lockkit.values import durations

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.sync.client import Client

__all__ = ["MOST", "look_at", "shown"]

MOST = 5000
"""Locks that one look reads. If there are more, the next look begins where it has ended."""


def look_at(
    client: Client,
    config: Config,
    *,
    besides: Collection[str] = (),
    jobs: Collection[str] = (),
    start: str = "",
) -> Look:
    """Look once. If the store does not answer, the look says so, and nothing is raised.

    Args:
        client: The client.
        config: The ages and times of the configuration, as they are now.
        besides: Names to leave out.
        jobs: The locks of regular jobs, which are read in each look, and their last holds.
        start: The lock to begin with.
    """
    subjects: dict[str, list[Subject]] = {}
    held: list[str] = []
    try:
        names = sorted(
            set(client.names()) - set(besides), key=lambda name: (name not in jobs, name < start, name)
        )
        unread = names[MOST:]
        for name in names[:MOST]:
            try:
                info = client.inspect(name)
            except (BackendUnavailable, OutcomeUnknown):
                raise
            except LockkitError:
                unread.append(name)  # this user or this version cannot read it
                continue
            held += [name] if info.holders else []
            for claim in info.claims:
                for what, subject in shown(claim, info.read_at, config):
                    subjects.setdefault(what, []).append(subject)
        last = dict(_last(client, jobs))
    except (BackendUnavailable, OutcomeUnknown) as error:
        return Look(unreachable=error.message)
    return Look(
        "",
        True,
        {what: tuple(found) for what, found in subjects.items()},
        frozenset(held),
        tuple(unread),
        last,
    )


def _last(client: Client, jobs: Iterable[str]) -> Iterator[tuple[str, float]]:
    for name in jobs:
        try:
            at = last_hold(client, name)
        except (BackendUnavailable, OutcomeUnknown):
            raise
        except LockkitError:  # this user cannot read it, so what was seen has to do
            continue
        if at is not None:
            yield name, at


def shown(claim: ClaimInfo, at: float, config: Config) -> Iterator[tuple[str, Subject]]:
    """The subjects that one claim shows: a dead owner, an old hold, an idle card.

    Args:
        claim: The claim, judged.
        at: The time of the look, by the clock of the store.
        config: The ages.
    """
    labels = {
        "lock": claim.name,
        "owner": str(claim.owner),
        "claim": claim.claim_id,
        "host": claim.owner.host,
    }
    if claim.state == "LINGERING" or claim.evidence == NOBODY:
        return
    if claim.alive is False and not claim.kept_by:
        yield "zombie", Subject(labels, claim.evidence)
    if claim.state != "HELD":
        return
    age = at - claim.since
    if age >= config.age_hard:
        yield "old", Subject(labels, f"{_for(age, claim.since)} by {claim.owner}")
    since: float | None = of_gpus("use_of")(claim).idle_since
    if since is not None and config.gpu_idle_after is not None and at - since >= config.gpu_idle_after:
        yield "idle", Subject(labels, f"for {_for(at - since, since)}, by {claim.owner}")


def _for(seconds: float, since: float) -> str:
    """A duration, with the time at which it began, because the text is read later than it is written."""
    return f"{durations.show(seconds)} (since {durations.utc(since)})"
