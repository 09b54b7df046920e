"""``lockkit explain``: why a lock is not free, in complete sentences."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from lockkit.cli import drains, output, traces
from lockkit.cli.base import Session
from lockkit.cli.base import command as make
from lockkit.cli.lock_table import use_of_gpu
from lockkit.cli.parameters import NAME
from lockkit.cli.suggesting import as_called, card_meant, gpus_meant
from lockkit.cli.waiting import ordinal
from lockkit.config.suggesting import SameStore, command_line
from lockkit.facts import Keeper
from lockkit.hooks import of_gpus
from lockkit.lib.descent import descendants
from lockkit.lib.printable import printable
from lockkit.notes.members import in_pool
from lockkit.observe.survivors import program
from lockkit.protocol.denials import because, drain_ends
from lockkit.values import durations
from lockkit.values.identity import look_at
from lockkit.views.looking import seen

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, LockInfo
    from lockkit.sync.client import Client

__all__ = ["command", "failed_words", "sentences", "ways_out"]

_SHOWN = 10
_FAILURES = 3
"""Failed releases of a name that are listed, the latest ones."""


@make(
    "explain",
    examples="""
lockkit explain backup
lockkit explain backup --json | jq -r '.sentences[]'
""",
)
@click.argument("name", type=NAME)
def command(session: Session, name: str) -> None:
    """Explain in sentences why the lock NAME is not free.

    The explanation says who holds the lock, since when, why, how far it is, and who has asked for the lock;
    who waits; and which command ends the hold. If the store knows, it says when the hold was last renewed,
    whether a renewal is overdue, and when the hold lapses. It says whether the holder is alive, stopped or
    dead and how that is known, which processes of a stopped lockkit run go on, which processes keep the lock
    if the holder is gone, or whether lockkit acquire took the lock. Failed releases of the name are listed,
    and for a name that is not in use, similar names that are, and a record that a program wrote of it. A UUID
    of a GPU of this host, or at least 8 characters of one, means its lock if no lock has that name.
    """
    with session.client() as client:
        info = client.inspect(name)
        options, first = as_called(session)
        now = time.time()
        card = None if info.claims else card_meant(client, name)
        told = []
        if card is not None and card.outright:
            told = [f"No lock called {name!r} is in use, so this is about {card.words} of this host."]
            info, name = card.info, card.info.name
        found = None if info.claims else traces.traces(client, name)
        failed = traces.failures(client, name) if found is None else found.failed
        told += sentences(info, now, options, first)
        told += traces.sentences(found, now, options, first, meant=card is not None) if found else []
        meant = (
            None
            if info.claims or (card is not None and card.outright)
            else gpus_meant(session, client, name, card)
        )
        told += [f"{meant[0].upper()}{meant[1:]}"] if meant else []
        told += failed_words(client, failed, name, options)
        drained = seen(client)
        if drained is not None:
            said = drains.told(drained)
            told.append(f"{said[0].upper()}{said[1:]}; {drain_ends(drained, SameStore(options, first))}.")
        if session.json:
            from lockkit.cli import documents

            output.print_json(
                documents.Explain,
                store=client,
                lock=info,
                sentences=told,
                near=(found and found.near) or (),
                record=found and found.record,
                failures=[str(one["id"]) for one in failed],
                drained=drained,
                indent=True,
            )
            return
        output.say(f"{output.store_words(client)}, namespace {client.namespace}")
    output.say("\n".join(told))


def sentences(
    info: LockInfo, now: float, options: str = "", first: str = "", *, queue: bool = True
) -> list[str]:
    """The explanation of a queue, sentence by sentence.

    ``options`` select the same store in a suggested command, before which ``first`` must be done. With
    ``queue`` the first waiters are listed. Times are in seconds since the epoch.
    """
    name = info.name
    if not info.claims:
        return [f"{name!r} is free: nobody holds it and nobody waits for it."]
    told = _pooled(info)
    for claim in info.holders:
        told += _holder(claim, now, options, first)
    if not info.holders:
        told.append(f"Nobody holds {name!r} at this moment; it is about to go to the next in the queue.")
    if info.capacity is not None and info.capacity > 1 and info.claims[0].kind == "semaphore":
        used = sum(claim.weight for claim in info.holders)
        taken = _memory(used, info.capacity) if _of_cards(info.name) else f"{used} of {info.capacity} permits"
        told.append(f"{taken} are taken.")
    waiters = info.waiters
    if waiters and not queue:
        return told
    for place, claim in enumerate(waiters[:_SHOWN], start=1):
        state = {"stopped": ", which is stopped", "gone": ", which has ended"}.get(claim.process, "")
        told.append(
            f"{ordinal(place)} in the queue: {claim.owner}{state}, for "
            f"{_ago(now, claim.since)}{because(claim)} (claim {claim.claim_id})."
        )
    if len(waiters) > _SHOWN:
        told.append(f"{len(waiters) - _SHOWN} more wait.")
    if not waiters:
        told.append("Nobody waits for it.")
    return told


def _of_cards(name: str) -> bool:
    """Whether a lock is for GPUs of a host."""
    found = in_pool(name)
    return found is not None and bool(of_gpus("has_cards")(found[0]))


def _memory(used: int, capacity: int) -> str:
    """The memory of a GPU that is taken, in words; both numbers are MiB."""
    from lockkit.values.sizes import MIB, show

    return f"{show(used * MIB)} of {show(capacity * MIB)}"


def _pooled(info: LockInfo) -> list[str]:
    """The sentences about the pool that a lock belongs to."""
    found = in_pool(info.name)
    if found is None:
        return []
    pool, member = found
    if _of_cards(info.name):
        told: list[str] = of_gpus("pool_words")(info)
        return told
    if member is not None:
        return [f"{info.name!r} is member {member!r} of pool {pool!r}."]
    told = [f"{info.name!r} is the gate of pool {pool!r}, which requests for its members pass one by one."]
    asked = info.holders[0].note.get("pool") if info.holders else None
    if isinstance(asked, Mapping):
        count = asked.get("count")
        members = "1 member" if count == 1 else f"{count} members"
        share = f", {asked['each']} of each" if "each" in asked else ""
        told.append(f"The request at the gate waits for {members}{share}; all others wait behind it.")
    return told


def _holder(claim: ClaimInfo, now: float, options: str, first: str) -> list[str]:
    name, at = claim.name, output.clock_time
    how = {"read": " for reading", "write": " for writing"}.get(claim.kind, "")
    if claim.state == "LINGERING":
        until = "" if claim.deadline is None else f" until {at(claim.deadline, now)}"
        after = f"{name!r} is still blocked{until} after a hold by {claim.owner} that has ended"
        return [f"{after} (min_hold or lock_delay; claim {claim.claim_id}, fence {claim.fence})."]
    by = f"by {claim.owner}"
    if claim.process == "gone":
        by = f"for {claim.owner}, which has ended,"
    held = f"{name!r} is held{how} {by} since {at(claim.since, now)}, for {_ago(now, claim.since)}"
    told = [f"{held} (claim {claim.claim_id}, fence {claim.fence})."]
    told += _news(claim, now)
    left = bool(claim.note.get("acquire"))
    if left:
        told.append("It was taken by lockkit acquire: no process is attached to it, and nothing renews it.")
    elif claim.renewed:
        told.append(_renewed(claim, now))
    untold = claim.deadline is None and not claim.process_bound
    if claim.evicted:
        until = "when its holder has stopped" if claim.deadline is None else f"at {at(claim.deadline, now)}"
        until += f", or its ttl of {durations.show(claim.ttl)} is over" if untold else ""
        told.append(f"It has been evicted and goes to the next in the queue {until}.")
        if claim.process in ("stopped", "gone"):
            told += _process(claim)
        return told + ways_out(claim, options, first)
    if left:
        until = (
            f"{durations.show(claim.ttl)} after it was taken"
            if claim.deadline is None
            else f"at {at(claim.deadline, now)}"
        )
        told.append(f"It lapses by itself {until}.")
        return told + ways_out(claim, options, first)
    if untold:
        told.append(
            "When it was last renewed is unknown, because the store does not say. "
            f"It lapses by itself some {durations.show(claim.ttl)} after its process has died or was cut off."
        )
    elif claim.deadline is None and claim.process == "gone":
        told.append("It does not lapse by itself while a process keeps it.")
    elif claim.deadline is None:
        told.append("It does not lapse by itself while its process lives; it ends with that process.")
    elif claim.process_bound:
        told.append(f"It ends with its process, and at {at(claim.deadline, now)} at the latest (max_hold).")
    else:
        told.append(f"Without another renewal it lapses by itself at {at(claim.deadline, now)}.")
    return told + _process(claim) + _requests(claim, options, first) + ways_out(claim, options, first)


def _requests(claim: ClaimInfo, options: str, first: str) -> list[str]:
    """The command that asks a holder for its lock, unless it is known that the holder cannot hear of it."""
    if claim.process in ("stopped", "gone") or claim.alive is False:
        return []
    ask = command_line("ask-release", claim.name, f'--claim {claim.claim_id} --reason "..."', options=options)
    return [f"To ask its holder to release it{first}: {ask}"]


def _news(claim: ClaimInfo, now: float) -> list[str]:
    """The sentences about the holder's report of its work, and the requests of others to it."""
    told = [f"It is held for: {claim.reason}."] if claim.reason else []
    progress = claim.progress
    if progress is not None:
        told.append(f"Its holder told {_ago(now, progress.at)} ago how far it is: {progress}.")
    used = use_of_gpu(claim, now)
    told += [f"Its holder told last of the GPU: {', '.join(used)}."] if used else []
    return told + [
        f"It was asked to release {_ago(now, request.at)} ago, by {request}."
        for request in claim.release_requests
    ]


def _process(claim: ClaimInfo) -> list[str]:
    """The state of the process behind a hold, and the command that lets it go on or ends it."""
    because = f": {claim.evidence}." if claim.evidence else "."
    who = "The lockkit run that took it" if claim.note.get("run") else "Its holder"
    if claim.process == "stopped":
        told = f"{who} is stopped, by a signal or a debugger, and renews nothing{because}"
        return [told, *_running(claim), f"To let it go on: kill -CONT {claim.owner.pid}"]
    if claim.process == "gone" and claim.alive:
        ended = claim.evidence.partition("; ")[0]  # the rest is about those that keep it
        told = f"{who} is gone{f': {ended}' if ended else ''}, but processes that it started keep the lock."
        if not claim.kept_by:
            return [told, "Which processes keep the lock cannot be told: this user may not look into them."]
        kept = f"The lock is kept until these have ended: {', '.join(map(str, claim.kept_by))}."
        return [told, kept, f"To end {'it' if len(claim.kept_by) == 1 else 'them'}: {_ending(claim.kept_by)}"]
    if claim.alive is None:
        return [f"Whether its holder is alive is unknown{because}"]
    if claim.alive and claim.process == "unknown":  # perhaps not the one that took it
        return [f"Some process keeps it{because}"]
    return [f"Its holder is {'alive' if claim.alive else 'dead'}{because}"]


def _ending(kept_by: Sequence[Keeper]) -> str:
    """The commands that end processes which keep a lock. A stopped one heeds them only once it goes on."""
    from lockkit.cli.watchdog import NAME

    stopped = [each for each in kept_by if (one := look_at(each.pid)) is not None and one.stopped]
    killed = [each for each in kept_by if not (each in stopped and each.program == NAME)]
    kinds = (("kill", killed), ("kill -CONT", stopped))
    return "; ".join(f"{how} {' '.join(str(each.pid) for each in some)}" for how, some in kinds if some)


def _running(claim: ClaimInfo) -> list[str]:
    """A sentence about processes of a command that run on although their ``lockkit run`` is stopped."""
    if not claim.note.get("run"):
        return []
    from lockkit.cli.watchdog import NAME

    there = {pid: look_at(pid) for pid in descendants(claim.owner.pid)}
    running = [pid for pid, one in there.items() if one is not None and not (one.ended or one.stopped)]
    told = [str(Keeper(pid, name)) for pid in sorted(running) if (name := program(pid)) != NAME]
    return [f"Its command goes on: {', '.join(told)}."] if told else []


def _renewed(claim: ClaimInfo, now: float) -> str:
    """The sentence about the last renewal, which is overdue when late by half of its interval."""
    every = claim.ttl / 3
    at = f"It was last renewed at {output.clock_time(claim.renewed, now)}, {_ago(now, claim.renewed)} ago"
    told = f"{at}; a holder renews every {durations.show(every)}, a third of its ttl."
    if claim.evicted or now - claim.renewed <= 1.5 * every:
        return told
    if claim.process in ("stopped", "gone"):
        return f"{told} That is overdue."
    return (
        f"{told} That is overdue: its process is stopped, overloaded, dead or cut off from the store, "
        "unless it was told not to renew."
    )


def ways_out(claim: ClaimInfo, options: str, first: str) -> list[str]:
    """The commands that end a hold from outside.

    For a hold of ``acquire`` eviction comes last: no process of it could be found dead. A hold that is
    evicted, or whose process is dead, only blocks until its holder must have noticed.
    """
    dead = claim.process == "gone" and not claim.alive
    now = " --now" if claim.evicted or dead else ""
    evict = command_line(
        "evict", claim.name, f'--claim {claim.claim_id}{now} --reason "..."', options=options
    )
    if not claim.note.get("acquire"):
        when = "If you know that its holder is gone" if claim.evicted else "To force it out"
        if dead:
            when = "If nothing that it started works on, free it now"
        return [f"{when}{first}: {evict}"]
    printed = bool(claim.note.get("printed"))
    who = "with the token that was printed" if printed else f"as {claim.owner.user} on {claim.owner.host}"
    release = command_line("release", claim.name, "--token-file FILE" if printed else "", options=options)
    return [
        f"To end it, {who}{first}: {release}",
        f"Only if that cannot be done, to force it out{first}: {evict}",
    ]


def failed_words(
    client: Client, records: Sequence[Mapping[str, object]], name: str, options: str
) -> list[str]:
    """The sentences about failed releases of a name, in all namespaces and on all stores."""
    told = []
    if len(records) > _FAILURES:
        told.append(
            f"The journal of this user has {len(records)} failed releases of {name!r}: lockkit failures list"
        )
    for record in records[-_FAILURES:]:
        at, claim = str(record.get("at", ""))[:19], record.get("claim", "")
        url, namespace = str(record.get("url", client.url)), str(record.get("namespace", client.namespace))
        here = (url, namespace) == (client.url, client.namespace)
        place = "" if here else printable(f" in namespace {namespace} of {url}")
        told.append(
            f"A release of {name!r}{place} got no answer at {at}Z (claim {claim}): lockkit failures "
            f"show{options} {record['id']}"
        )
    return told


def _ago(now: float, then: float) -> str:
    return durations.show(max(now - then, 0.0))
