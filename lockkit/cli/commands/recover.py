"""``lockkit recover``: remove what dead owners left behind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lockkit.cli import exits, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import Duration
from lockkit.cli.signals import Signals, Terminated

if TYPE_CHECKING:
    from lockkit.observe.recovery import Recoverer, Result, Round
    from lockkit.sync.client import Client

__all__ = ["command"]

_WORDS = {
    "remove": ("would remove", "removed"),
    "evict": ("would evict", "evicted"),
    "resolve": ("would resolve", "resolved"),
    "fix": ("would fix", "fixed"),
    "tell": ("left alone:", "left alone:"),
}
_LEFT = {
    "": "",
    "changed": "left alone, because it has changed since it was seen",
    "absent": "was gone already",
    "limited": "left for later, because recover_limit is reached",
}


@make(
    "recover",
    examples="""
lockkit recover                 # what would be done, and why
lockkit recover --yes
lockkit recover --yes --every 30s
""",
)
@option("--yes", is_flag=True, help="Act. Without it nothing is changed.")
@option(
    "--every",
    type=Duration(),
    metavar="TIME",
    help="Look again every TIME until stopped.",
)
def command(session: Session, *, yes: bool, every: float | None) -> int:
    """Find dead owners' claims, old holds, failed releases and healthy quarantined GPUs; --yes acts on them.

    A claim is removed at once only if its owner is proved to be dead, on this host or by the oracle of a
    plugin. A hold that is older than age_soft and has not been renewed for two thirds of its ttl is evicted,
    which waits until its holder must have stopped. A holder that lives keeps its lock. Several recoverers
    each remove the claims whose owners they can prove to be dead. Everything else is done by one of them;
    another takes over when that one ends. Each action is written to recovery.jsonl in the state folder, and
    at most recover_limit claims are removed in an hour. A GPU that a program found faulty is given back once
    its driver has twice shown it well; a person's quarantine stays. See: lockkit docs recover

    Exit code: 0 nothing is left that it may do, 1 something is (a dry run, or the limit), or locks could not
    be read; 69 the store does not answer; 75 another recoverer is at work, or the namespace is drained.
    """
    from lockkit.observe.recovery import Recoverer

    with session.client() as client:
        recoverer = Recoverer(client, act=yes)
        if every is None:
            done = recoverer.once()
            _show(session, client, done, act=yes)
            if done.leader:
                raise exits.CommandFailed(
                    f"another recoverer is at work: {done.leader}",
                    code=exits.BUSY,
                    kind="busy",
                    hint="leave the rest to it",
                )
            return exits.OK if done.complete else exits.FAILED
        _go_on(session, client, recoverer, every, act=yes)
    return exits.OK


def _go_on(session: Session, client: Client, recoverer: Recoverer, every: float, *, act: bool) -> None:
    """Look again and again until a signal comes."""
    said: list[tuple[object, ...]] = []

    def seen(done: Round) -> None:
        what = tuple((one.case.kind, one.case.claim_id, one.case.tier, one.outcome) for one in done.results)
        if not said or said[-1] != (done.leader, *what):
            _show(session, client, done, act=act)
            sys.stdout.flush()
        said[:] = [(done.leader, *what)]

    try:
        with Signals():
            recoverer.run(every, seen)
    except (KeyboardInterrupt, Terminated):
        recoverer.stop()


def _show(session: Session, client: Client, done: Round, *, act: bool) -> None:
    if session.json:
        from lockkit.cli import documents, parts
        from lockkit.views.making import made_of, unread

        cases = [made_of(parts.RecoveryCase, one.case, one) for one in done.results]
        output.print_json(documents.Recover, done, store=client, cases=cases, unread=unread(done.unread))
        return
    for one in done.results:
        output.say(_sentence(one))
    for name, error in done.unread:
        output.say(f"cannot read {name!r}: {error.message}")
    if done.leader and act:
        output.say(f"another recoverer acts: {done.leader}")
    elif not done.results and not done.unread:
        output.say("nothing to recover")
    elif not act and done.open:
        output.say("nothing was changed; to act: --yes")


def _sentence(one: Result) -> str:
    case = one.case
    would, did = _WORDS[case.action]
    claim = f" (claim {case.claim_id})" if case.claim is not None else ""
    left = _LEFT.get(one.outcome)
    word = would if left is not None else did
    tail = f"; {left}" if left else ""
    return f"{word} {case.name!r}{claim}: {case.why}{tail}"
