"""``lockkit release``: release a lock that ``acquire`` took."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

import click

from lockkit.cli import completing, exits, holds, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import NAME
from lockkit.errors import ConfigError
from lockkit.values.names import check_token

if TYPE_CHECKING:
    from lockkit.cli.holds import Stored
    from lockkit.facts import ReleaseReport
    from lockkit.sync.client import Client

__all__ = ["command"]

_ELSEWHERE = (
    "release as the same user, on the same host, on the same store; or use --token-file, or lockkit evict"
)


@make(
    "release",
    examples="""
lockkit release deploy
printf %s "$token" | lockkit release deploy --token-file -   # from elsewhere
""",
)
@click.argument("name", type=NAME)
@option(
    "--claim",
    "claim_id",
    metavar="ID",
    shell_complete=completing.holds,
    help="The hold to release, if NAME has several (semaphores).",
)
@option(
    "--token-file",
    type=click.File("r"),
    metavar="FILE",
    help="Read the token that acquire --print-token printed; - is stdin.",
)
def command(session: Session, name: str, *, claim_id: str | None, token_file: TextIO | None) -> int:
    """Release the lock NAME that acquire took, as the same user on the same host (or with its token).

    Without --token-file it releases the current hold of this user on this host, whichever script took it; if
    the hold has lapsed, it exits 76. If another script may take NAME meanwhile, use acquire --print-token and
    release --token-file, which end one certain hold and never a later one.
    """
    with session.client() as client:
        report: ReleaseReport | None
        if token_file is not None:
            token = _token(token_file)
            report = client.adopt({"v": 1, "name": name, "token": token, "fence": 0}).release()
            over = holds.of(client, name, token)
        else:
            report, over = _stored(client, name, claim_id)
        for one in over:
            _forget(session, name, one)
        if report is None or report.outcome == "LOST":
            raise exits.CommandFailed(
                f"the hold of {name!r} was gone before it was released",
                code=exits.LOST,
                kind="lost",
                name=name,
                hint="it lapsed or was evicted, and somebody else may have held it meanwhile",
            )
        if session.json:
            from lockkit.cli import documents

            output.print_json(documents.Release, report, store=client, name=name, release=report)
    if not session.json:
        output.say(f"released {name!r}", stream=sys.stderr)
    return exits.OK


def _token(file: TextIO) -> str:
    try:
        return check_token(file.read().strip())
    except ConfigError as error:
        raise click.UsageError(f"--token-file: {error}") from None


def _forget(session: Session, name: str, over: Stored) -> None:
    """Remove the file of a hold that has ended. A file that cannot be removed does no harm."""
    try:
        over.forget()
    except OSError as error:
        output.notice(
            f"cannot remove the file of a hold that has ended: {error}", name=name, as_json=session.json
        )


def _stored(client: Client, name: str, claim_id: str | None) -> tuple[ReleaseReport | None, list[Stored]]:
    """Release the current hold. Returns the report (None: hold was gone), and the files of ended holds."""
    standing, gone = holds.find(client, name)
    if claim_id is not None:
        standing = [one for one in standing if one.claim.claim_id == claim_id]
        gone = [one for one in gone if one.claim_id == claim_id]
    if not standing and not gone:
        told, hint = holds.absent(client, name)
        raise exits.CommandFailed(told, code=exits.FAILED, kind="absent", name=name, hint=hint or _ELSEWHERE)
    if len(standing) > 1:
        ids = ", ".join(one.claim.claim_id for one in standing)
        raise exits.CommandFailed(
            f"{name!r} has {len(standing)} holds: {ids}",
            code=exits.USAGE,
            kind="ambiguous",
            name=name,
            hint="choose one with --claim ID",
        )
    if not standing:
        return None, gone
    return client.adopt(standing[0].handle()).release(), [standing[0].stored, *gone]
