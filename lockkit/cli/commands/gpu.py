"""``lockkit gpu``: the GPUs of this host."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from lockkit.cli import exits, output
from lockkit.cli.base import Duration, Group, Remark, Session, option
from lockkit.cli.base import command as make
from lockkit.cli.card_options import SIMULATE
from lockkit.cli.gpu_adopt import command as adopt
from lockkit.cli.signals import Signals
from lockkit.errors import BackendError, ConfigError, DevicesUnavailable
from lockkit.identity import this_process
from lockkit.namedtuples import NamedTuple
from lockkit.printable import printable

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.devices import Snapshot
    from lockkit.gpu.known import Known
    from lockkit.gpu.states import Card
    from lockkit.gpu.usage import Use

__all__ = ["command"]

command = Group(
    "gpu",
    help="""Show the GPUs of this host, adopt jobs that already use them, and quarantine faulty ones.

    Needs the extra gpu (pip install "lockkit[gpu]") and NVIDIA's driver, or a plugin for cards of another maker. Each of these commands can
    be tried on a host without a GPU: --gpu-sim 2.
    """,
    examples="""
lockkit gpu ls
lockkit gpu ls --gpu-sim 2
lockkit gpu adopt 4711
""",
)
command.add_command(adopt)


@make(
    "ls",
    group=command,
    examples="""
lockkit gpu ls
lockkit gpu ls --watch             # live; Ctrl-C ends it
lockkit gpu ls --json | jq -r '.gpus[] | select(.state == "free").uuid'
lockkit gpu ls --gpu-sim 2         # on any machine
""",
)
@option(
    "--watch",
    is_flag=True,
    help="Update the table again and again; with --json, print one document per line.",
)
@option(
    "--interval", type=Duration(), default=2.0, help="Time between two updates of --watch.  [default: 2s]"
)
@SIMULATE
def _ls(session: Session, *, watch: bool, interval: float, simulate: int | None) -> None:
    """List the GPUs of this host: which are free, who holds the others, and which are faulty.

    Held is a whole card, shared one of which holders have declared parts. Busy (unmanaged) is a card on which a program computes, or of which more than 1 GiB is in use beyond what the driver reserves. A process
    whose pid cannot be told, as in a container, is shown with what is known of it. A card that is divided into MIG slices is followed by
    them. A card is dirty if its last holder left memory in use. Quarantined cards are given to nobody: see lockkit gpu quarantine.

    Exit code: 0 there are GPUs, 78 there are none, or nothing can be said about any.
    """
    with session.client() as client:
        view = _View(client, simulate)
        if not watch:
            _print(session, view.host, view.look())
            return
        try:
            with Signals():  # so that the cursor is shown again, however the command ends
                _watch(session, view, interval)
        except KeyboardInterrupt:
            return  # Ctrl-C is the normal way to end it


class _View:
    """The GPUs of this host, with what the store knows of them. A store that does not answer hides no card.

    Args:
        client: The client.
        simulate: The number of cards to simulate; None for what the configuration says.
    """

    def __init__(self, client: Client, simulate: int | None = None) -> None:
        from lockkit.gpu.snapshots import providers

        self._client = client
        self._simulate = simulate
        self._providers = providers(client.config, client.plugins, simulate=simulate)

    @property
    def host(self) -> str:
        """The name of this host in the store.

        Raises:
            ConfigError: The name of this host is not known.
        """
        from lockkit.gpu.hosts import host_name

        return host_name(self._client.config, simulate=self._simulate)

    def look(self) -> Seen:
        """One look.

        Raises:
            DevicesUnavailable: Nothing can be said about any card.
        """
        from lockkit.gpu.joining import joined
        from lockkit.gpu.known import known
        from lockkit.gpu.snapshots import look
        from lockkit.gpu.usage import live_uses

        snapshot = look(self._providers)
        uuids = [device.uuid for device in snapshot.devices if device.uuid]
        try:
            of_store = known(self._client, self.host, uuids)
        except (BackendError, ConfigError) as error:
            told = f"who holds which card, and which are quarantined, is unknown: {error.message}"
            of_store, snapshot = {}, snapshot._replace(remarks=(*snapshot.remarks, told))
        uses: dict[str, Use] = {}
        for device in snapshot.devices:
            if device.uuid in of_store:
                uses |= live_uses(device, of_store[device.uuid].holders)
        return Seen(snapshot, joined(snapshot, of_store, uses), of_store, uses)

    def looks(self, interval: float) -> Iterator[Seen | DevicesUnavailable]:
        """Look again and again. A failure is yielded; the first look raises it."""
        seen: Seen | DevicesUnavailable = self.look()
        while True:
            yield seen
            time.sleep(interval)
            try:
                seen = self.look()
            except DevicesUnavailable as error:
                seen = error

    def meant(self, word: str) -> str:
        """The UUID of the card that a person means, which may be one that is quarantined and no longer seen.

        Raises:
            ConfigError: No card is meant, or several.
            DevicesUnavailable: Nothing can be said about any card, and no mark is meant either.
        """
        from lockkit.gpu.quarantine import quarantined
        from lockkit.gpu.resolving import resolve

        marks = quarantined(self._client, self.host)
        try:
            devices = self.look().snapshot.devices
        except DevicesUnavailable:
            if word not in marks:
                raise
            devices = ()
        return resolve(word, devices, marks)


class Seen(NamedTuple):
    """One look: the snapshot, its cards with their states, what the store knows of them, and the use that holders make of them."""

    snapshot: Snapshot
    cards: tuple[Card, ...]
    known: Mapping[str, Known]
    uses: Mapping[str, Use]


def _watch(session: Session, view: _View, interval: float) -> None:
    if session.json or not output.colour():
        for seen in view.looks(interval):
            if not isinstance(seen, DevicesUnavailable):
                _print(session, view.host, seen)
            elif session.json:
                output.write_json(exits.describe(seen), stream=sys.stderr)
            else:
                output.say(_away(seen))
            sys.stdout.flush()
    from rich.live import Live
    from rich.markup import escape

    from lockkit.cli.gpus import table_of
    from lockkit.cli.tables import width

    with Live(auto_refresh=False, screen=False) as live:
        found: tuple[Card, ...] = ()
        rows: list[str] = []
        for seen in view.looks(interval):
            if isinstance(seen, DevicesUnavailable):
                told = [_away(seen), *rows]  # the last state stays on the screen, with its time
            else:
                found = seen.cards
                at = time.strftime("%H:%M:%S", time.localtime(seen.snapshot.taken))
                told = rows = [*_below(seen), at]
            table = table_of(found, width())
            table.caption = escape(printable("\n".join(told), lines=True))
            live.update(table, refresh=True)


def _away(error: DevicesUnavailable) -> str:
    return f"trying again: {error.message}"


def _print(session: Session, host: str, seen: Seen) -> None:
    from lockkit.cli import gpus

    if session.json:
        output.write_json(gpus.document(host, seen.snapshot, seen.cards, seen.known, seen.uses), indent=True)
        return
    from lockkit.cli.tables import show, width

    show(gpus.table_of(seen.cards, width()))
    for row in _below(seen):
        output.say(row)


def _below(seen: Seen) -> list[str]:
    """The rows below the table."""
    from lockkit.gpu.states import summary

    return [summary(seen.cards), *seen.snapshot.remarks]


@make(
    "quarantine",
    group=command,
    examples="""
lockkit gpu quarantine 3 --reason "Xid 79 twice today, ticket 4711"
lockkit gpu quarantine GPU-54a033e8 --reason "being replaced"
""",
)
@click.argument("card", metavar="GPU")
@option("--reason", type=Remark(), required=True, help="Why: shown wherever the card is shown.")
@SIMULATE
def _quarantine(session: Session, card: str, *, reason: str, simulate: int | None) -> None:
    """Stop giving out a card of this host until lockkit gpu clear. The present holder keeps the card.

    GPU is a UUID, at least the first 8 characters of one, or an index. All users of the store see the mark, and so does lockkit gpu ls.
    """
    from lockkit.gpu.quarantine import quarantine

    with session.client() as client:
        view = _View(client, simulate)
        uuid = view.meant(card)
        mark = quarantine(client, view.host, uuid, reason, this_process())
        if session.json:
            from lockkit.cli import documents, gpus

            output.write_json(
                documents.GpuQuarantine(
                    store=output.store(client), host=view.host, uuid=uuid, quarantine=gpus.mark(mark)
                ),
                indent=True,
            )
            return
    output.say(f"{uuid} is {mark}; to give it back: lockkit gpu clear {uuid}")


@make(
    "clear",
    group=command,
    examples="""
lockkit gpu clear 3
""",
)
@click.argument("card", metavar="GPU")
@SIMULATE
def _clear(session: Session, card: str, *, simulate: int | None) -> int:
    """End the quarantine of a card of this host.

    GPU is a UUID, at least the first 8 characters of one, or an index. A card that is no longer seen can be cleared by its UUID. Exits 1 if the card was not
    quarantined.
    """
    from lockkit.gpu.quarantine import clear

    with session.client() as client:
        view = _View(client, simulate)
        uuid = view.meant(card)
        mark = clear(client, view.host, uuid)
        if session.json:
            from lockkit.cli import documents, gpus

            output.write_json(
                documents.GpuClear(
                    store=output.store(client),
                    host=view.host,
                    uuid=uuid,
                    quarantine=None if mark is None else gpus.mark(mark),
                ),
                indent=True,
            )
    if not session.json:
        output.say(
            f"{uuid} was not quarantined" if mark is None else f"{uuid} can be given out again; it was {mark}"
        )
    return exits.FAILED if mark is None else exits.OK
