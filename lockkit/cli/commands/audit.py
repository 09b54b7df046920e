"""``lockkit audit``: check by the event journals whether locks have excluded what they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import click

from lockkit.cli import exits, output, past
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import DURATION, Duration, File
from lockkit.values import durations
from lockkit.values.durations import rfc3339

if TYPE_CHECKING:
    from lockkit.cli import documents
    from lockkit.observe.audit import Audit, Violation
    from lockkit.observe.past import PastHold, PastStep

__all__ = ["command"]

_CODES = {"held": exits.OK, "nothing": exits.UNDECIDED, "violated": exits.FAILED}
_KINDS: Mapping[str, Literal["overlap", "fence", "same-fence", "stale-write"]] = {
    "overlap": "overlap",
    "fence": "fence",
    "same fence": "same-fence",
    "stale write": "stale-write",
}
_SHOWN = 20
"""Violations that are shown to people; a document has all."""


@make(
    "audit",
    examples="""
lockkit audit --since 1d
lockkit audit one/events.jsonl two/events.jsonl    # two hosts
lockkit audit --max-skew 50ms --json
""",
)
@click.argument("files", metavar="[FILES]...", type=File(), nargs=-1)
@option("--since", type=DURATION, metavar="TIME", help=past.SINCE)
@option(
    "--max-skew",
    type=Duration(zero=True),
    metavar="TIME",
    help="How far the clocks of two hosts may be apart.  [default: 500ms]",
)
def command(session: Session, files: tuple[str, ...], *, since: float | None, max_skew: float | None) -> int:
    """Read event journals, and check that no holds that exclude each other overlapped, and that fences rose.

    Holds of one boot of a host are compared by a clock that nobody can set, those of different hosts by their
    wall clocks: an overlap by more than --max-skew is a violation, and closer holds are undecidable, because
    the clocks may hide an overlap. Two holds with one fence are always a violation, as is a write that a
    guarded resource accepted after a higher fence. Without FILES, the journals of this host are read. --url
    and --namespace leave out other stores and namespaces. If anything is missing in the journals, the audit
    says what, and never that exclusion held.

    Exit code: 0 exclusion held; 1 it did not, and the holds are named; 65 undecidable, because the clocks are
    too far apart, something is missing, or there are no grants or no journals.
    """
    from lockkit.observe.audit import MAX_SKEW, audit

    history = past.read(session, files, None, since, absent=exits.UNDECIDED)
    found = audit(history, MAX_SKEW if max_skew is None else max_skew)
    if session.json:
        output.write_json(_document(found, history.files), indent=True)
    else:
        _show(found)
    return _CODES.get(found.verdict, exits.UNDECIDED)


def _show(found: Audit) -> None:
    facts = ", ".join(_facts(found))
    told = {
        "held": f"exclusion held: {facts}",
        "violated": f"EXCLUSION WAS VIOLATED: {facts}",
        "undecidable": f"undecidable: {facts}",
        "incomplete": f"no violation was found, but the journals are incomplete: {facts}",
        "nothing": "there is nothing to audit: the journals have no grants",
    }
    output.say(told[found.verdict])
    if found.verdict == "held":
        output.say(
            "that is said of these grants: a process whose journal was off, or could "
            "not be written, may be in none"
        )
    for violation in found.violations[:_SHOWN]:
        output.say(_sentence(violation))
        for row in [*map(_hold, violation.holds), *map(_step, violation.steps)]:
            output.say(f"  {row}")
    if len(found.violations) > _SHOWN:
        output.say(f"and {len(found.violations) - _SHOWN} more; --json has all")
    if found.undecidable:
        skew = durations.exact(found.max_skew)
        pairs = "a hold" if found.undecidable == 1 else f"{found.undecidable:,} holds"
        output.say(
            f"{pairs} may have overlapped with another: they are on different hosts and closer together "
            f"than {skew} (say how far the clocks may really be apart: --max-skew 10ms), or the first one "
            "has no known end"
        )
    for sentence in past.missing(found.gaps):
        output.say(f"missing: {sentence}")
    if found.first is not None:
        since = f"the journals begin at {rfc3339(found.first)}"
        began = _count(found.unbegun, "hold")
        were = "was" if found.unbegun == 1 else "were"
        unbegun = f"; {began} began before, and {were} not checked" if found.unbegun else ""
        output.say(f"{since}{unbegun}")


def _facts(found: Audit) -> list[str]:
    kinds = Counter(one.kind for one in found.violations)
    overlaps, fences = kinds["overlap"], kinds["fence"] + kinds["same fence"]
    facts = [
        _count(found.grants, "grant"),
        _count(found.locks, "lock"),
        _count(overlaps, "overlap"),
        f"{_count(fences, 'fence')} did not rise" if fences else "fences rose",
        _count(found.lapses, "lapse"),
    ]
    if found.writes or found.refused or kinds["stale write"]:
        facts.append(
            f"{_count(found.writes, 'guarded write')}, {kinds['stale write']:,} lost to an older holder, "
            f"{found.refused:,} refused"
        )
    facts += [f"{found.open:,} still held"] if found.open else []
    facts += [f"{found.undecidable:,} undecidable"] if found.undecidable else []
    return facts


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _sentence(violation: Violation) -> str:
    name = f"{violation.name!r} in {violation.key.namespace} on {violation.key.store}"
    if violation.kind == "overlap":
        return f"{name}: these holds overlapped for at least {violation.seconds * 1000:.3f} ms"
    if violation.kind == "stale write":
        _, late = violation.steps
        return f"{name}: {late.resource} accepted fence {late.fence} after a higher one"
    if violation.kind == "fence":
        return f"{name}: the second of these holds has no higher fence"
    return f"{name}: these holds have the same fence"


def _hold(hold: PastHold) -> str:
    ended = "no end is known" if hold.ended is None else f"to {rfc3339(hold.ended)}"
    until = "" if hold.until_boottime is None else f" to {hold.until_boottime:.6f}"
    return (
        f"fence {hold.fence}, claim {hold.claim_id}, {hold.owner}: {rfc3339(hold.began)} {ended} "
        f"(boot {hold.owner.boot_id[:8]}, {hold.began_boottime:.6f}{until})"
    )


def _step(step: PastStep) -> str:
    return (
        f"fence {step.fence} {step.kind}, claim {step.claim_id}, {step.owner}: "
        f"{rfc3339(step.at - step.lasted)} to {rfc3339(step.at)} (boot {step.owner.boot_id[:8]}, "
        f"{step.boottime - step.lasted:.6f} to {step.boottime:.6f})"
    )


def _document(found: Audit, files: tuple[str, ...]) -> documents.Audit:
    from lockkit.cli import documents, parts
    from lockkit.views.making import made_of

    violations = [made_of(parts.Violation, one, kind=_KINDS[one.kind]) for one in found.violations]
    return made_of(documents.Audit, found, files=files, violations=violations)
