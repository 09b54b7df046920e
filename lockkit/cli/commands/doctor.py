"""``lockkit doctor``: check configuration, store and plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lockkit.cli import exits, logs, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.errors import LockkitError
from lockkit.facts import Finding

if TYPE_CHECKING:
    from lockkit.cli import parts
    from lockkit.client import Client
    from lockkit.config import Config

__all__ = ["command"]

_RANK = {"ok": 0, "warning": 1, "error": 2}
_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@make(
    "doctor",
    examples="""
lockkit doctor
lockkit doctor --fail-on warning --json
""",
)
@option(
    "--fail-on",
    type=click.Choice(["warning", "error"]),
    default="error",
    show_default=True,
    help="The lowest severity for which the exit code is not 0.",
)
def command(session: Session, *, fail_on: str) -> int:
    """Check configuration, store and plugins, and print one sentence per finding.

    Exit code: 0 all is well, 1 warnings (with --fail-on warning), 2 errors.
    """
    findings, store = _findings(session)
    if session.json:
        from lockkit.cli import documents

        output.write_json(documents.Doctor(store=store, findings=output.findings(findings)), indent=True)
    else:
        for one in findings:
            word = click.style(one.severity, fg=_COLOURS[one.severity]) if output.colour() else one.severity
            output.say(f": {one.message}" + (f" ({one.hint})" if one.hint else ""), head=word)
    worst = max((_RANK[one.severity] for one in findings), default=0)
    return worst if worst >= _RANK[fail_on] else exits.OK


def _findings(session: Session) -> tuple[list[Finding], parts.Store | None]:
    from lockkit.plugins.checking import check_files

    found = check_files(
        session.url, profile=session.profile, namespace=session.namespace, elsewhere="warning"
    )

    def known(message: str) -> bool:
        """Whether a warning from opening the store is also a finding. The hints are compared, because a message may contain an age."""
        return any(one.hint and one.severity != "ok" and f"({one.hint})" in message for one in found)

    try:
        with session.client() as client, logs.held_back(known):
            found += _store(client)
            client.warn()
            found += _plugins(client)
            found += _failures(client.config)
            return found, output.store(client) if session.json else None
    except LockkitError as error:
        if not any(one.severity == "error" and one.message == error.message for one in found):
            found.append(Finding("store", "error", error.message, error.hint or ""))
        return found, None


def _store(client: Client) -> list[Finding]:
    """Findings about the store: those that follow from its capabilities, and those from its own ``check()``."""
    can = client.capabilities
    where = f"{output.store_words(client)}, namespace {client.namespace}"
    reach = {
        "process": "only threads of one process",
        "host": "only this host",
        "fleet": "every host that uses it",
    }
    found = [Finding("store", "ok", f"{where}; its locks reach {reach[can.scope]}")]
    known = client.check()
    if can.scope == "process" and all(one.severity == "ok" for one in known):
        found.append(
            Finding(
                "scope",
                "warning",
                "this store's locks do not reach beyond one process",
                "see: lockkit config show",
            )
        )
    return found + list(known)


def _plugins(client: Client) -> list[Finding]:
    return [
        Finding("plugins", "warning", f"plugin {info.name}: {info.error}", "see: lockkit plugins")
        for info in client.plugins.describe()
        if info.error
    ]


def _failures(config: Config) -> list[Finding]:
    from lockkit.observe import journal
    from lockkit.places import state_place

    configured = None if config.state_dir is None else (config.state_dir, config.source("state_dir"))
    place = state_place(configured=configured)
    found = [Finding("state", "ok", f"state folder: {place.path} (from {place.source})")]
    count = sum(not record.get("resolved") for record in journal.read(place.path))
    if count:
        noun = "release" if count == 1 else "releases"
        found.append(
            Finding(
                "failures",
                "warning",
                f"{count} failed {noun} not resolved yet",
                "see: lockkit failures list",
            )
        )
    return found
