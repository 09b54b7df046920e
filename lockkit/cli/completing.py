"""Completion of values in a shell: names, claims, profiles, namespaces, plugins, failures, settings and GPUs.

A shell waits for the answer at every TAB, on the line that somebody is typing. So a completion writes
nothing to stderr, and ends within a second even if the store is dead: then it offers nothing.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

import click

from lockkit.errors import LockkitError
from lockkit.lib.clock import SYSTEM
from lockkit.notes.members import POOLS
from lockkit.values.identity import process_start

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from lockkit.config.config import Config
    from lockkit.gpu.devices import Device
    from lockkit.sync.client import Client

__all__ = [
    "VARIABLE",
    "Completer",
    "alerts",
    "begin",
    "cards",
    "claims",
    "failures",
    "holds",
    "lockable",
    "marked_cards",
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

_MODEL = re.compile(r"(?!HBM)[A-Z]+-?\d\w*")
"""Words that identify a model: H100, A100-SXM4, RTX4090."""

Completer: TypeAlias = "Callable[[click.Context, click.Parameter, str], list[CompletionItem]]"


def begin() -> None:
    """Make this process silent, and let it end in time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    began = process_start(os.getpid())
    passed = 0.0 if began is None else SYSTEM.now() - began
    timer = threading.Timer(max(_LONGEST - passed, 0.1), os._exit, (0,))
    timer.daemon = True
    timer.start()


def _completer(find: Callable[[click.Context, str], Iterable[tuple[str, str]]]) -> Completer:
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
    with _client(ctx) as client:
        yield from ((name, "") for name in client.names(incomplete))


def _lockable(ctx: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    yield from (row for row in _names(ctx, incomplete) if not row[0].startswith(POOLS))


def _claims(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    with _client(ctx) as client:
        for claim in client.inspect(ctx.params["name"]).claims:
            yield claim.claim_id, f"{claim.state.lower()}, {claim.owner}"


def _holds(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.cli.holds import find

    with _client(ctx) as client:
        for one in find(client, ctx.params["name"]).standing:
            yield one.claim.claim_id, f"fence {one.claim.fence}"


def _profiles(_ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.config import configfiles
    from lockkit.config.config import ETC

    found = configfiles.look(None, None, ETC, None, None)
    for name in sorted(found.profiles()):
        yield name, next(str(layer.source) for layer in found.files() if name in layer.profiles)


def _namespaces(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.config import configfiles
    from lockkit.config.config import ETC

    found = configfiles.look(None, None, ETC, None, None)
    for layer in found.layers():
        for values in (layer.values, *layer.profiles.values()):
            if values.get("namespace"):
                yield str(values["namespace"]), layer.source
    yield from _stored_namespaces(ctx)


def _stored_namespaces(ctx: click.Context) -> list[tuple[str, str]]:
    """The namespace of this user and those in the store, if the store lists them in time."""
    from lockkit.store.spi import Refused, Unknown

    end = SYSTEM.now() + _LISTING
    with _client(ctx, _LISTING) as client:
        found = [(client.namespace, "in use")]
        with suppress(LockkitError, Refused, Unknown):
            listed = client.driver().backend.extras.namespaces
            if listed is not None:
                found += [(name, "in the store") for name in sorted(listed(max(end - SYSTEM.now(), 0.01)))]
        return found


def _pools(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    for name, members in sorted(_config(ctx).pools.items()):
        yield name, ", ".join(members)


def _plugins(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.plugins import PluginManager

    for info in PluginManager(disabled=_config(ctx).disable_plugins).describe():
        yield info.name, info.dist or info.source


def _alerts(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    from lockkit.alerts.desk import Desk, folder_of

    for one in Desk(folder_of(_config(ctx))).alerts():
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


def _cards(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    for device in _devices(ctx):
        yield from _named(device, device.name)


def _usable_cards(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    for device in _devices(ctx):
        if not device.sliced:
            yield from _named(device, device.name)


def _marked_cards(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """The cards that are quarantined, also one that is no longer seen."""
    from lockkit.gpu.marks import ALL
    from lockkit.gpu.quarantine import quarantined
    from lockkit.gpu.views import HostView

    with _client(ctx) as client:
        host = HostView(client, ctx.params.get("simulate")).host
        marks = quarantined(client, host)
    seen = {}
    with suppress(LockkitError):
        seen = {device.uuid: device for device in _devices(ctx)}
    for uuid, mark in marks.items():
        if uuid == ALL:
            yield from ((each, told) for one in seen.values() for each, told in _named(one, str(mark)))
            continue
        yield from _named(seen[uuid], str(mark)) if uuid in seen else [(uuid, str(mark))]


def _models(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """The models, and the words of their names that identify them, such as H100."""
    for name in dict.fromkeys(device.name for device in _devices(ctx) if device.name):
        yield from ((word, name) for word in name.split() if _MODEL.fullmatch(word))
        yield name, ""


def _named(device: Device, told: str) -> Iterator[tuple[str, str]]:
    """A card by its index and by its UUID; a slice has no index."""
    if device.index >= 0 and device.parent is None:
        yield str(device.index), told
    if device.uuid:
        yield device.uuid, told


def _devices(ctx: click.Context) -> tuple[Device, ...]:
    from lockkit.gpu.snapshots import look, looking, providers
    from lockkit.plugins import PluginManager

    config = _config(ctx)
    plugins = PluginManager(disabled=config.disable_plugins)
    asked = providers(config, plugins, simulate=ctx.params.get("simulate"))
    return look(asked, looking(config)).devices


def _journal(ctx: click.Context) -> list[dict[str, object]]:
    from lockkit.observe import journal

    return journal.read(_config(ctx).state_place(create=False).path)


def _config(ctx: click.Context, request: float = _REQUEST) -> Config:
    from lockkit.config import config

    url, profile, namespace = (ctx.params.get(key) for key in ("url", "profile", "namespace"))
    loaded = config.load(url=url, profile=profile, namespace=namespace)
    return loaded._replace(request_timeout=request)


@contextmanager
def _client(ctx: click.Context, request: float = _REQUEST) -> Iterator[Client]:
    import lockkit

    with lockkit.connect(config=_config(ctx, request)) as client:
        yield client


cards = _completer(_cards)
"""The GPUs of this host, by index and UUID."""
usable_cards = _completer(_usable_cards)
"""The GPUs that a program can use: not one that is divided into slices."""
marked_cards = _completer(_marked_cards)
"""The GPUs that are quarantined."""
models = _completer(_models)
"""The models of the GPUs of this host."""
names = _completer(_names)
"""The names that have claims."""
lockable = _completer(_lockable)
"""The names that have claims and can be locked by name: not those of pools."""
claims = _completer(_claims)
"""The ids of the claims of NAME."""
alerts = _completer(_alerts)
"""The fingerprints of alerts."""
holds = _completer(_holds)
"""The ids of the holds of NAME that ``lockkit acquire`` took here."""
profiles = _completer(_profiles)
"""The profiles of the configuration."""
namespaces = _completer(_namespaces)
"""The namespaces of the store and the configuration."""
pools = _completer(_pools)
"""The pools of the configuration."""
plugins = _completer(_plugins)
"""The names of plugins."""
failures = _completer(_failures)
"""The ids of failed releases."""
unresolved = _completer(_unresolved)
"""The ids of failed releases that are not resolved."""
settings = _completer(_settings)
"""The keys of the settings."""
