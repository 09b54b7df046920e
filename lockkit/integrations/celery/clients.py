"""The client of a Celery application: one for each application, made when a task first needs a lock.

A worker forks its children before any task runs, so the client is made in the child. If the parent has used
its client already (for an eager task), a forked child may go on with it, with connections of its own.
"""

from __future__ import annotations

import weakref
from typing import Any

from celery import Celery

from lockkit.config.settings import SETTINGS, meant
from lockkit.errors import ConfigError
from lockkit.lib.mutex import Mutex
from lockkit.sync.client import Client, connect

__all__ = ["BEAT", "PREFIX", "client_of", "close_clients", "given_to", "settings_of", "ttl_of"]

PREFIX = "lockkit_"
"""The beginning of the keys of lockkit in the configuration of a Celery application."""
BEAT = "beat_"
"""The start of those keys, after the prefix, that are for :mod:`lockkit.integrations.celery.beat` alone."""
TTL = 60.0
"""Seconds that the store keeps a task's claim without renewal, unless the configuration says otherwise."""
_mutex = Mutex()
_clients: weakref.WeakKeyDictionary[object, Client] = weakref.WeakKeyDictionary()


def client_of(app: Celery) -> Client:
    """The client of an application.

    The application overrides lockkit's settings: ``app.conf.lockkit_url``, ``lockkit_namespace``, ...

    Raises:
        ConfigError, PluginError: As :func:`lockkit.connect`.
    """
    with _mutex.of_this_process():
        client = _clients.get(app)
        if client is None or client._opening.closed:  # noqa: SLF001
            # No on_sigterm: the handlers of signals are Celery's own.
            client = _clients[app] = connect(**settings_of(app))
        return client


def close_clients() -> None:
    """Close this process's clients, when a pool process ends and for tests. The next task makes another."""
    with _mutex.of_this_process():
        clients = list(_clients.values())
        _clients.clear()
    for client in clients:
        client.close()


def ttl_of(client: Client, ttl: float | None) -> float:
    """The ttl of a task's claims."""
    if ttl is not None:
        return ttl
    return client.config.ttl if client.config.is_set("ttl") else TTL


def given_to(app: Celery) -> dict[str, Any]:
    """The values for lockkit in an application's configuration, by lower-case keys without :data:`PREFIX`."""
    app.conf.get(f"{PREFIX}url")  # reads the configuration, if nothing has needed it yet
    conf = app.conf
    # With config_from_object(..., namespace="CELERY") the keys have that prefix, and any case.
    before = str(getattr(conf, "prefix", None) or "").lower()
    keys = {str(key).lower().removeprefix(before): key for key in conf}
    return {name.removeprefix(PREFIX): conf[key] for name, key in keys.items() if name.startswith(PREFIX)}


def settings_of(app: Celery) -> dict[str, Any]:
    """The settings of lockkit in the configuration of an application, as ``connect`` takes them.

    Raises:
        ConfigError: A key that begins with ``lockkit_`` is no setting.
    """
    known = [PREFIX + name for name in ("profile", *SETTINGS)]
    given = {name: value for name, value in given_to(app).items() if not name.startswith(BEAT)}
    for name in sorted(given):
        if PREFIX + name not in known:
            raise ConfigError(
                f"the configuration of the Celery application has {PREFIX}{name}, "
                "which is no setting of lockkit",
                hint=meant(PREFIX + name, known, prefix=PREFIX) or "the settings: lockkit docs config",
            )
    return given
