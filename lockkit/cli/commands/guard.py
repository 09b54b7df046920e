"""``lockkit guard``: show that a resource refuses a stale fence."""

from __future__ import annotations

import click

from lockkit.cli import exits, output
from lockkit.cli.base import Group, Session
from lockkit.cli.base import command as make
from lockkit.errors import BackendUnavailable, LockkitError

__all__ = ["command"]

command = Group(
    "guard",
    help="""Show that what you write to refuses a stale fence.

    A lock cannot stop a holder that was paused for longer than its ttl: when it continues, it writes. The
    fence can, if the resource compares it. lockkit.guard has gates that do so for SQL, Redis, etcd,
    ZooKeeper, files and object stores; see: lockkit docs guards
    """,
    examples="""
lockkit guard check postgresql://app@db/app
lockkit guard check redis://cache:6379/0
lockkit guard check /srv/reports
""",
)


@make(
    "check",
    group=command,
    examples="""
lockkit guard check sqlite:/srv/app.db
lockkit guard check postgresql://app@db/app
lockkit guard check redis://cache:6379/0
lockkit guard check etcd://a:2379,b:2379
lockkit guard check zookeeper://a:2181/app
lockkit guard check /srv/reports
lockkit guard check s3://bucket/folder --json
""",
)
@click.argument("resource", metavar="RESOURCE")
def _check(session: Session, resource: str) -> int:
    """Show on RESOURCE, a URL or a folder, that a stale fence is refused.

    Two holders take turns over connections of their own, as after a pause that was longer than the ttl: fence
    1 writes, fence 2 opens, fence 1 writes again, which must be refused. They use a table, key, node, file or
    object of a random name (lockkit-guard-check-...), which is removed afterwards. Nothing else is touched.

    No lock is taken, so --url, --profile and --namespace do not matter. An object store takes its login from
    the environment (AWS_ACCESS_KEY_ID, ...).

    Exit code: 0 a stale fence is refused, 1 it is not, 69 the resource does not answer or refuses the user,
    78 wrong URL or a missing library.
    """
    from lockkit.guard.checking import checks
    from lockkit.guard.scratch import scratch
    from lockkit.values.redaction import redact

    shown = redact(resource) if ":" in resource else resource
    found = []
    try:
        with scratch(resource) as place:
            if not session.json:
                output.say(f"checking {shown}, with {place.where}")
            for one in checks(place):
                found.append(one)
                if not session.json:
                    word = "ok    " if one.ok else "FAILED"
                    colour = "green" if one.ok else "red"
                    output.say(
                        f" {one.message}", head=click.style(word, fg=colour) if output.colour() else word
                    )
    except (LockkitError, BrokenPipeError):
        raise
    except Exception as error:  # of the resource's library; its text may repeat the URL
        told = (" ".join(str(error).split()) or type(error).__name__).replace(resource, shown)
        raise BackendUnavailable(
            f"{shown}: {told}", hint="is it running, and may this user make a scratch?"
        ) from error
    wrong = next((one for one in found if not one.ok), None)
    if session.json:
        from lockkit.cli import documents

        output.print_json(
            documents.GuardCheck,
            resource=shown,
            scratch=place.where,
            ok=wrong is None,
            checks=found,
            indent=True,
        )
    if wrong is not None:
        raise exits.CommandFailed(
            f"{shown} does not keep out a stale holder: {wrong.message}", code=exits.FAILED, kind="unguarded"
        )
    if not session.json:
        output.say("a stale fence is refused; the scratch is removed")
    return exits.OK
