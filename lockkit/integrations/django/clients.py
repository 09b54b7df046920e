"""The client of a Django process, made when it is first needed."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from lockkit.lib.mutex import Mutex
from lockkit.sync.client import Client, connect

__all__ = ["client"]

_mutex = Mutex()
_made: Client | None = None


def client() -> Client:
    """The client of this process, for views, tasks and commands.

    ``settings.LOCKKIT`` has keywords of :func:`lockkit.connect`; lockkit's own configuration has the others.
    A server may fork after the first call: each worker opens connections of its own.

    Raises:
        ImproperlyConfigured: ``settings.LOCKKIT`` is no dict.
        ConfigError, PluginError: As :func:`lockkit.connect`.
    """
    global _made  # noqa: PLW0603 (one client for the process)
    with _mutex.of_this_process():
        if _made is None or _made._opening.closed:  # noqa: SLF001
            keywords = getattr(settings, "LOCKKIT", {})
            if not isinstance(keywords, dict):
                raise ImproperlyConfigured(
                    f"LOCKKIT must be a dict of keywords of lockkit.connect, not {keywords!r}"
                )
            _made = connect(**keywords)
        return _made
