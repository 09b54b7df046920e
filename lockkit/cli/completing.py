"""Completion of values in a shell: names, claims, profiles, namespaces, plugins, failures, settings and GPUs.

A shell waits for the answer at every TAB, on the line that somebody is typing. So a completion writes
nothing to stderr, and ends within a second even if the store is dead: then it offers nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

import click

from lockkit.errors import LockkitError
from lockkit.hooks import of_gpus
from lockkit.lib.clock import SYSTEM
from lockkit.notes.members import POOLS
from lockkit.values.identity import process_start

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from lockkit.config.config import Config
    from lockkit.sync.client import Client

__all__ = [
    "VARIABLE",
    "Completer",
    "alerts",
    "begin",
    "claims",
    "client_of",
    "completer",
    "config_of",
    "failures",
    "holds",
    "lockable",
    "models",
    "names",
    "namespaces",
    "plugins",
    "pools",
    "profiles",
    "settings",
    "unresolved",
    "usable_cards",
]

VARIABLE = "_LOCKKIT_COMPLETE"
"""The environment variable by which a completion script asks for an answer."""
_LONGEST = 0.95
"""Seconds from the start of the process after which a completion ends without an answer."""
_REQUEST = 0.5
"""Seconds that one request to the store may take."""
_LISTING = 0.3
"""Seconds for the namespaces, with the connection. Redis has to look at all keys of the server."""

Completer: TypeAlias = "Callable[[click.Context, click.Parameter, str], list[CompletionItem]]"


def begin() -> None:
    """Make this process silent, and let it end in time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    began = process_start(os.getpid())
    passed = 0.0 if began is None else SYSTEM.now() - began
    timer = threading.Timer(max(_LONGEST - passed, 0.1), os._exit, (0,))
    timer.daemon = True
    timer.start()


def completer(find: Callable[[click.Context, str], Iterable[tuple[str, str]]]) -> Completer:
    """Turn a function that finds values with descriptions into a completer. After an error it finds none."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 (click's)
        from click.shell_completion import CompletionItem

        try:
            found = dict(find(ctx, incomplete))
        except Exception:
            return []
        # A value that does not print would be shown escaped, which is another value.
        return [
            CompletionItem(value, help=told or None)
            for value, told in found.items()
            if value.startswith(incomplete) and value.isprintable()
        ]

    return complete


def _names(ctx: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    with client_of(ctx) as client:
        yield from ((name, "") for name in client.names(incomplete))


def _lockable(ctx: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    yield from (row for row in _names(ctx, incomplete) if not row[0].startswith(POOLS))


def _claims(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    with client_of(ctx) as client:
        for claim in client.inspect(ctx.params["name"]).claims:
            yield claim.claim_id, f"{claim.state.lower()}, {claim.owner}"


def _holds(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.cli.holds import find

    with client_of(ctx) as client:
        for one in find(client, ctx.params["name"]).standing:
            yield one.claim.claim_id, f"fence {one.claim.fence}"


def _profiles(_ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.config import configfiles

    found = configfiles.look()
    for name in sorted(found.profiles()):
        yield name, next(str(layer.source) for layer in found.files() if name in layer.profiles)


def _namespaces(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.config import configfiles

    found = configfiles.look()
    for layer in found.layers():
        for values in (layer.values, *layer.profiles.values()):
            if values.get("namespace"):
                yield str(values["namespace"]), layer.source
    yield from _stored_namespaces(ctx)


def _stored_namespaces(ctx: click.Context) -> list[tuple[str, str]]:
    """The namespace of this user and those in the store, if the store lists them in time."""
    from lockkit.store.spi import Refused, Unknown

    end = SYSTEM.now() + _LISTING
    with client_of(ctx, _LISTING) as client:
        found = [(client.namespace, "in use")]
        with suppress(LockkitError, Refused, Unknown):
            listed = client.driver().backend.extras.namespaces
            if listed is not None:
                found += [(name, "in the store") for name in sorted(listed(max(end - SYSTEM.now(), 0.01)))]
        return found


def _pools(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    for name, members in sorted(config_of(ctx).pools.items()):
        yield name, ", ".join(members)


def _plugins(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.plugins import PluginManager

    for info in PluginManager(disabled=config_of(ctx).disable_plugins).describe():
        yield info.name, info.dist or info.source


def _alerts(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.alerts.desk import Desk, folder_of

    for one in Desk(folder_of(config_of(ctx))).alerts():
        yield one.alert.fingerprint, one.alert.text


def _failures(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    for record in _journal(ctx):
        yield str(record["id"]), f"{record.get('name')}, {record.get('at')}"


def _unresolved(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    for record in _journal(ctx):
        if not record.get("resolved"):
            yield str(record["id"]), f"{record.get('name')}, {record.get('at')}"


def _settings(_ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.config.settings import SETTINGS

    for setting in SETTINGS.values():
        yield setting.place, setting.meaning


def _of_gpus(name: str) -> Completer:
    """A completer that lockkit's plugin for GPUs has, which is imported when it is used."""

    def find(ctx: click.Context, incomplete: str) -> Iterable[tuple[str, str]]:
        found: Iterable[tuple[str, str]] = of_gpus(name)(ctx, incomplete)
        return found

    return completer(find)


def _journal(ctx: click.Context) -> list[dict[str, object]]:
    from lockkit.observe import journal

    return journal.read(config_of(ctx).state_place(create=False).path)


def config_of(ctx: click.Context, request: float = _REQUEST) -> Config:
    """The configuration that the options typed so far select; ``request``: seconds for one request."""
    from lockkit.config import config

    url, profile, namespace = (ctx.params.get(key) for key in ("url", "profile", "namespace"))
    loaded = config.load(url=url, profile=profile, namespace=namespace)
    return loaded._replace(request_timeout=request)


@contextmanager
def client_of(ctx: click.Context, request: float = _REQUEST) -> Iterator[Client]:
    """A client for the block, with the configuration of :func:`config_of`."""
    import lockkit

    with lockkit.connect(config=config_of(ctx, request)) as client:
        yield client


usable_cards = _of_gpus("usable_cards")
"""The GPUs that a program can use: not one that is divided into slices."""
models = _of_gpus("models")
"""The models of the GPUs of this host."""
names = completer(_names)
"""The names that have claims."""
lockable = completer(_lockable)
"""The names that have claims and can be locked by name: not those of pools."""
claims = completer(_claims)
"""The ids of the claims of NAME."""
alerts = completer(_alerts)
"""The fingerprints of alerts."""
holds = completer(_holds)
"""The ids of the holds of NAME that ``lockkit acquire`` took here."""
profiles = completer(_profiles)
"""The profiles of the configuration."""
namespaces = completer(_namespaces)
"""The namespaces of the store and the configuration."""
pools = completer(_pools)
"""The pools of the configuration."""
plugins = completer(_plugins)
"""The names of plugins."""
failures = completer(_failures)
"""The ids of failed releases."""
unresolved = completer(_unresolved)
"""The ids of failed releases that are not resolved."""
settings = completer(_settings)
"""The keys of the settings."""
