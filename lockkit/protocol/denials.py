"""The error messages of an acquire that got no hold, with advice."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from lockkit.config.suggesting import HERE, SameStore, command_line, quoted
from lockkit.errors import AcquireTimeout, BackendUnavailable, CapacityMismatch, LockkitError
from lockkit.facts import ClaimInfo, Drain
from lockkit.lib.caller import shown
from lockkit.lib.printable import printable
from lockkit.protocol.hold import Hold, held_here
from lockkit.protocol.outer import is_around
from lockkit.store.spi import Granted, Lapsed, Terms
from lockkit.values import durations

__all__ = [
    "around",
    "because",
    "busy",
    "by_this_thread",
    "drain_ends",
    "drain_unsure",
    "held_at",
    "held_claim",
    "hold_of",
    "in_the_way",
    "listed",
    "mismatch",
    "named",
    "no_choice",
    "no_choice_in_time",
    "none_in_time",
    "none_will_do",
    "reasons_tail",
    "taken_at",
    "timeout",
    "too_few",
    "too_slow",
    "useless",
]


def in_the_way(claim: ClaimInfo, wall: float) -> str:
    """Describe a claim: ``held by ann@box pid 4711 (sleep), 12 s``, or ``next is ...`` if the claim waits.

    A program may wait for itself: the description of a claim of this process has the file and line that
    acquired it, and a claim of a ``lockkit run`` or task around this program is described as such. ``wall``:
    the time, in seconds since the epoch.
    """
    verb = {"HELD": "held by", "LINGERING": "still blocked after"}.get(claim.state, "next is")
    place = held_at(claim)
    here = f", this very process, which acquired it at {place}" if place else around(claim.claim_id)
    state = {"stopped": ", which is stopped", "gone": ", which has ended"}.get(claim.process, "")
    return f"{verb} {claim.owner}{here}{state}, {durations.age(wall - claim.since)}{because(claim)}"


def around(claim_id: object) -> str:
    """The words ``, the lockkit run or task around this program``, for the owner of its claim; else empty."""
    return ", the lockkit run or task around this program" if is_around(claim_id) else ""


def because(claim: ClaimInfo) -> str:
    """The reason given with a claim, to append: ``, for: nightly reindex``; empty if there is none."""
    return f", for: {printable(claim.reason)}" if claim.reason else ""


def held_at(claim: ClaimInfo | None) -> str | None:
    """The file and line at which this very process acquired a claim; None if it does not hold the claim."""
    return taken_at(hold_of(claim))


def held_claim(claim: ClaimInfo | None) -> str | None:
    """The id of a claim that holds, for the holder's own journal; None if it is only ahead in the queue."""
    return None if claim is None or claim.state != "HELD" else claim.claim_id


def hold_of(claim: ClaimInfo | None) -> Hold | None:
    """The hold of a claim that this very process acquired, through any client; None for other claims."""
    return None if claim is None else held_here(claim.name, claim.claim_id)


def taken_at(hold: Hold | None) -> str | None:
    """The file and line at which a hold was acquired, as far as they are known."""
    return None if hold is None else shown(hold.taken_at) or None


def by_this_thread(hold: Hold | None) -> bool:
    """Whether the calling thread acquired a hold. A wait for its own hold is probably a mistake."""
    return hold is not None and hold.key is not None and hold.key() is threading.current_thread()


def timeout(
    name: str, holder: ClaimInfo | None, waited: float, wall: float, store: SameStore = HERE
) -> AcquireTimeout:
    """The error for a wait whose time is up.

    Args:
        name: The lock.
        holder: The claim that was last seen in the way.
        waited: Seconds that the wait has lasted.
        wall: Seconds since the epoch.
        store: How a suggested command uses the same store.
    """
    line = command_line("explain", name, options=store.options)
    look = f"with{store.first}: {line}" if store.reachable else f"with: client.inspect({name!r})"
    who = f"; {in_the_way(holder, wall)}" if holder else ""
    return AcquireTimeout(
        f"timed out after {durations.show(waited)} waiting for {name!r}{who}",
        name=name,
        holder=holder,
        hint=f"wait longer, or look {look}",
    )


def busy(names: Sequence[str], last: str, holder: ClaimInfo | None, wall: float) -> AcquireTimeout:
    """The error for an acquire that does not wait and found the lock, or each of several, busy.

    Args:
        names: The locks.
        last: The lock that was tried last.
        holder: The claim that was seen in its way.
        wall: Seconds since the epoch.
    """
    who = f"; {in_the_way(holder, wall)}" if holder else ""
    what = f"{names[0]!r} is busy" if len(names) == 1 else f"each of {listed(names)} is busy"
    if who and len(names) > 1:
        who = f"; {last!r}: {who.removeprefix('; ')}"
    return AcquireTimeout(what + who, name=last, holder=holder, hint="give a timeout to wait for it")


def none_in_time(error: AcquireTimeout, names: Sequence[str]) -> AcquireTimeout:
    """The error for a wait for any of several locks, made from the error for one of them."""
    if len(names) == 1:
        return error
    text = f"none of {listed(names)} came free in time: {error.message}"
    return AcquireTimeout(text, name=error.name, holder=error.holder, hint=error.hint)


def too_few(
    error: AcquireTimeout, pool: str, have: int | None, count: int, refused: Mapping[str, str]
) -> AcquireTimeout:
    """The error for a wait for members of a pool, made from that for the lock that it waited for last.

    Args:
        error: The error of that lock.
        pool: The pool.
        have: The number of members that it had; None if it was still waiting for its turn.
        count: The number of members that it wanted.
        refused: Why other members did not do, by member.
    """
    members = "1 member" if count == 1 else f"{count} members"
    how_far = "its turn had not come" if have is None else f"it had {have}"
    text = (
        f"pool {pool!r} did not give {members} in time, and {how_far}: {error.message}{reasons_tail(refused)}"
    )
    return AcquireTimeout(text, name=error.name, holder=error.holder, hint=error.hint)


def reasons_tail(refused: Mapping[str, str]) -> str:
    """The reasons against pool members, to append: ``; 'GPU-1' will not do: used by ann (pid 4711)``."""
    return "".join(f"; {member!r} will not do: {printable(why)}" for member, why in refused.items())


def none_will_do(pool: str, waited: float) -> AcquireTimeout:
    """The error for a request whose time is up while too few members will do; ``waited`` in seconds."""
    return AcquireTimeout(
        f"timed out after {durations.show(waited)}: too few members would do",
        name=pool,
        hint="wait longer, or ask for less",
    )


def no_choice(pool: str, chooser: str, budget: float) -> BackendUnavailable:
    """The error for a chooser, as errors call it, that gave no answer within a budget, in seconds."""
    return BackendUnavailable(
        f"{chooser} gave no answer within {durations.show(budget)}",
        name=pool,
        hint="find out what it waits for: it must answer soon",
    )


def no_choice_in_time(pool: str, chooser: str, waited: float) -> AcquireTimeout:
    """The error for a request whose time is up while its chooser is asked; ``waited`` in seconds."""
    return AcquireTimeout(
        f"timed out after {durations.show(waited)}, while {chooser} gave no answer",
        name=pool,
        hint="wait longer, or find out what it waits for: it must answer soon",
    )


def too_slow(name: str, took: float) -> BackendUnavailable:
    """The error for an acquire that does not wait, after ``took`` seconds for the locks before ``name``."""
    return BackendUnavailable(
        f"the store took {durations.show(took)} to answer for the locks before {name!r}",
        name=name,
        hint="take fewer locks at once, or use a longer request_timeout",
    )


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: all of up to four, else three and the number of the others."""
    shown = [repr(name) for name in (names if len(names) <= 4 else names[:3])]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def mismatch(
    terms: Terms, holder: ClaimInfo | None, capacity: int | None, store: SameStore = HERE
) -> CapacityMismatch:
    """The error for a claim that can never hold, because others use another capacity.

    Args:
        terms: The terms of the claim.
        holder: The claim that was last seen in the way.
        capacity: The capacity that others use; None if a resize made it smaller than the claim's weight.
        store: How a suggested command uses the same store.
    """
    name = terms.name
    resize = f"client.resize({name!r}, {terms.capacity})"
    if store.reachable:
        resize = command_line("resize", name, str(terms.capacity), options=store.options)
    if capacity is None:
        text = f"{name!r} was resized: its capacity is now smaller than this claim's weight {terms.weight}"
    else:
        by = f" by {holder.owner} (lockkit {holder.owner.version or 'unknown'})" if holder else ""
        text = f"{name!r} is in use with capacity {capacity}{by}, not {terms.capacity}"
    return CapacityMismatch(
        text,
        name=name,
        holder=holder,
        hint=f"use one capacity everywhere, or change it{store.first}: {resize}",
    )


def drain_ends(drain: Drain, store: SameStore = HERE) -> str:
    """How the user ends a drain: ``to end it: lockkit undrain NAMESPACE``.

    Args:
        drain: The mark of the namespace. If only a part of the store has it, repeating the drain also helps.
        store: How a suggested command uses the same store.
    """
    if not store.reachable:
        return "client.undrain() ends it"
    undrain = _of_namespace("undrain", drain.namespace, store)
    if drain.partial:
        drain_line = _of_namespace("drain", drain.namespace, store)
        return f"to finish it{store.first}: {drain_line}, or to end it: {undrain}"
    return f"to end it{store.first}: {undrain}"


def drain_unsure(namespace: str, store: SameStore, *, ended: bool) -> str:
    """The hint for a drain or undrain that may have been done, or done in part.

    Args:
        namespace: The namespace.
        store: How a suggested command uses the same store.
        ended: Whether it was an undrain.
    """
    line = _of_namespace("undrain", namespace, store) if store.reachable else "client.undrain()"
    if ended:
        return f"namespace {namespace!r} may be drained still, wholly or in part; repeat{store.first}: {line}"
    return (
        f"namespace {namespace!r} may be drained now, wholly or in part; "
        f"repeat the drain, or end it{store.first}: {line}"
    )


def _of_namespace(command: str, namespace: str, store: SameStore) -> str:
    """A command about a namespace, which is left out if the options select it."""
    if f"{store.options} ".endswith(f" --namespace {quoted(namespace)} "):
        return f"lockkit {command}{store.options}"
    return command_line(command, namespace, options=store.options)


def useless(terms: Terms, answer: Granted | Lapsed, *, waits: bool) -> BackendUnavailable | None:
    """The error to raise if no usable answer follows this one; None if the wait just goes on."""
    if isinstance(answer, Granted):
        lasts = f"ttl {durations.show(terms.ttl)}"
        if terms.max_hold is not None:
            lasts += f", max_hold {durations.show(terms.max_hold)}"
        return BackendUnavailable(
            f"{terms.name!r} was granted, but the grant ran out before it could be used ({lasts})",
            hint="use a longer ttl or max_hold, or find out why the store is slow: lockkit doctor",
        )
    if waits:
        return None
    return BackendUnavailable(
        f"the claim for {terms.name!r} was ended before it was granted ({answer.why})", hint="try again"
    )


def named(error: LockkitError, name: str | None) -> LockkitError:
    """The error, with the name of the lock filled in if it was missing."""
    if error.name is None:
        error.name = name
    return error
