"""``lockkit failures``: releases without a definite answer, kept until they are resolved."""

from __future__ import annotations

from pathlib import Path

import click

from lockkit.cli import completing, exits, failure_table, output
from lockkit.cli.base import Group, Session, option
from lockkit.cli.base import command as make

__all__ = ["command"]

command = Group(
    "failures",
    help="""Show and resolve releases that failed.

    If a release gets no definite answer, the lock lapses by itself, and a record is written to the journal of
    this user on this host. To resolve a failure only records that somebody has dealt with it.
    """,
    examples="""
lockkit failures list
lockkit failures show 1f9a03c2
lockkit failures resolve 1f9a03c2
""",
)


def _folder(session: Session) -> Path:
    return session.config().state_place().path


def _find(session: Session, identity: str) -> dict[str, object]:
    from lockkit.observe import journal

    found = [
        record for record in journal.read(_folder(session)) if str(record.get("id", "")).startswith(identity)
    ]
    if len(found) != 1:
        what = "no failure" if not found else f"{len(found)} failures"
        raise exits.CommandFailed(
            f"there {'are' if found else 'is'} {what} with an id that begins with {identity!r}",
            code=exits.FAILED,
            kind="absent",
            hint="see: lockkit failures list --all",
        )
    return found[0]


@make("list", group=command, examples="lockkit failures list\nlockkit failures list --all --json")
@option("--all", "everything", is_flag=True, help="Show resolved failures too.")
def _list(session: Session, *, everything: bool) -> None:
    """List the failures that are not resolved, oldest first."""
    from lockkit.observe import journal

    records = [one for one in journal.read(_folder(session)) if everything or not one.get("resolved")]
    if session.json:
        from lockkit.views import documents

        output.write_json(documents.Failures(failures=records), indent=True)
        return
    if not records:
        output.say("no failures" if everything else "no unresolved failures")
        return
    from lockkit.cli.tables import show

    show(failure_table.table_of(records))


@make(
    "show",
    group=command,
    short="Show one failure, and how to resolve it.",
    examples="lockkit failures show 1f9a03c2",
)
@click.argument("identity", metavar="ID", shell_complete=completing.failures)
def _show(session: Session, identity: str) -> None:
    """Show one failure with everything that was recorded, and how to resolve it."""
    record = _find(session, identity)
    if session.json:
        from lockkit.cli import documents

        output.write_json(documents.Failure(failure=record), indent=True)
        return
    width = max(map(len, record)) + 2
    for key, value in record.items():
        first, *more = failure_table.words_of(key, value) or ["-"]
        output.say("\n".join([f"{key:<{width}}{first}", *(f"{'':<{width}}{line}" for line in more)]))
    if not record.get("resolved"):
        output.say(f"Once it is dealt with: lockkit failures resolve {record['id']}")


@make("resolve", group=command, examples="lockkit failures resolve 1f9a03c2")
@click.argument("identity", metavar="ID", shell_complete=completing.unresolved)
def _resolve(session: Session, identity: str) -> None:
    """Mark a failure as resolved."""
    from lockkit.observe import journal
    from lockkit.values.identity import user_name

    record = _find(session, identity)
    journal.resolve(_folder(session), str(record["id"]), user_name())
    if session.json:
        from lockkit.cli import documents

        output.write_json(documents.Failure(failure=_find(session, str(record["id"]))))
    else:
        output.say(f"resolved {record['id']}")
