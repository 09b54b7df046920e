"""The layers of settings: one for each file, for the environment, and for the URL's query.

:mod:`lockkit.config.configfiles` reads the files; :mod:`lockkit.config.precedence` ranks the layers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from lockkit.config.settings import IN_QUERY, SETTINGS, Setting, Value, meant, read
from lockkit.errors import ConfigError
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable

__all__ = [
    "ARGUMENT",
    "ENVIRONMENT",
    "NAMED",
    "Found",
    "Layer",
    "canonical",
    "environment",
    "split_query",
    "warn",
    "warn_once",
]

ARGUMENT = "argument"
"""The source of settings given by keyword."""

NAMED = ("pools", "plugins", "alerts.rules", "alerts.channels")
"""The kinds of tables that have names, such as ``[pools.cards]``."""

_log = logging.getLogger("lockkit.config")

_RUN = "Set by `lockkit run` for its command"
_BOTH = f"{_RUN}, and by a Celery task for what it starts"
_GPU = "Set by `lockkit run --gpu` for its command"
ENVIRONMENT: Mapping[str, str] = {
    "LOCKKIT_PROFILE": "The profile to use.",
    "LOCKKIT_CONFIG": "A file to read instead of the user's and the project's.",
    **{setting.env: setting.meaning for setting in SETTINGS.values() if setting.env},
    "LOCKKIT_LEASE_NAME": f"{_BOTH}: the name of the lock; not set where it holds several.",
    "LOCKKIT_LEASE_TOKEN": f"{_RUN}: the claim's token, a secret.",
    "LOCKKIT_LEASE_FENCE": f"{_BOTH}: the fencing token.",
    "LOCKKIT_LEASE_NAMES": f"{_BOTH}: the name of each lock, one on each line.",
    "LOCKKIT_POOL_MEMBERS": "Set by `lockkit run --pool` for its command, and by a Celery task for what it "
    "starts: the members of the pool that it holds, one on each line.",
    "LOCKKIT_GPU_RECEIPT": f"{_GPU}: how the last holder left each GPU, as JSON by UUID.",
    "LOCKKIT_GPU_UUIDS": f"{_GPU}: the UUIDs of its GPUs, with commas between them.",
    "LOCKKIT_GPU_INDEXES": f"{_GPU}: their indices, as `lockkit gpu ls` has them, in the same order.",
    "LOCKKIT_GPU_MEM": "Set by `lockkit run --gpu-mem` for its command: the memory that it has on each of "
    "its GPUs, in MiB.",
    "LOCKKIT_HELD": f"{_BOTH}: the locks that the `run` or task and all around it hold, as JSON.",
}
"""Every variable that lockkit reads or sets, with its meaning. An empty variable counts as unset."""

_PREFIX = "LOCKKIT_"
# Kubernetes describes every Service to every pod: one called lockkit or lockkit-redis gives variables such
# as LOCKKIT_SERVICE_HOST and LOCKKIT_REDIS_PORT. These are not settings, and cause no warning.
_INJECTED = (
    r"LOCKKIT_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
    r"|LOCKKIT_HOST"
)
_warned: set[str] = set()


class Layer:
    """The settings of one place.

    Attributes:
        source: The place, as people know it: a file's path, ``LOCKKIT_*``, ``argument``.
        values: The settings, read and checked.
        sources: The exact source of a key, if ``source`` is not exact enough.
        profiles: The settings of each ``[profiles.x]``.
        named: The tables with names that are no settings, by kind (:data:`NAMED`) and name: members of pools
            with their capacities; those of plugins, by canonical name, and of alerts undecoded.
        pinned: Whether the layer wins over everything except keywords in code.
        problems: The errors in this place.
        warnings: Probable mistakes, which do not prevent the use of the layer.
    """

    def __init__(self, source: str, values: dict[str, Value] | None = None, *, pinned: bool = False) -> None:
        self.source = source
        self.values = {} if values is None else values
        self.sources: dict[str, str] = {}
        self.profiles: dict[str, dict[str, Value]] = {}
        self.named: dict[str, dict[str, Mapping[str, Any]]] = {kind: {} for kind in NAMED}
        self.pinned = pinned
        self.problems: list[ConfigError] = []
        self.warnings: list[ConfigError] = []

    def origin(self, key: str) -> str:
        """The source of a setting of this layer."""
        return self.sources.get(key, self.source)

    def problem(self, message: str, hint: str | None = None) -> None:
        """Record an error in this place."""
        self.problems.append(ConfigError(f"{self.source}: {message}", hint=hint))

    def keep(
        self,
        setting: Setting,
        value: object,
        *,
        prefix: str = "",
        text: bool = False,
        into: dict[str, Value] | None = None,
    ) -> None:
        """Read a setting into ``values`` (or another dict), or record what is wrong with it."""
        try:
            (self.values if into is None else into)[setting.key] = read(setting, value, text=text)
        except ConfigError as error:
            told = f"{self.origin(setting.key)}: {prefix}{error.message}"
            self.problems.append(ConfigError(told, hint=error.hint))


class Found(NamedTuple):
    """The layers that were found, and for each file a mark by which a change is noticed."""

    environ: Mapping[str, str]
    etc: Layer | None
    user: Layer | None
    project: Layer | None
    environment: Layer
    stamps: Mapping[str, object]

    def files(self) -> list[Layer]:
        """The layers that are files, lowest first."""
        return [layer for layer in (self.etc, self.user, self.project) if layer is not None]

    def layers(self) -> list[Layer]:
        """All layers, lowest first."""
        return [*self.files(), self.environment]

    def profiles(self) -> set[str]:
        """The names of all profiles."""
        return {name for layer in self.files() for name in layer.profiles}

    def chosen(self, profile: str | None) -> str | None:
        """The profile to use, given the ``profile`` that was chosen by keyword."""
        return profile or self.environ.get("LOCKKIT_PROFILE") or None


def canonical(dist: str) -> str:
    """The normalized name of a distribution: lower case, ``-`` for runs of ``-_.``."""
    name = dist.replace("_", "-").replace(".", "-").lower()
    while "--" in name:
        name = name.replace("--", "-")
    return name


def environment(environ: Mapping[str, str]) -> Layer:
    """The settings of the ``LOCKKIT_*`` variables. An unknown variable is a warning, not an error."""
    layer = Layer("environment")
    for setting in SETTINGS.values():
        text = environ.get(setting.env, "") if setting.env else ""
        if setting.env and text:
            layer.sources[setting.key] = setting.env
            layer.keep(setting, text, text=True)
    for name in environ:
        if name.startswith(_PREFIX) and name not in ENVIRONMENT and not re.fullmatch(_INJECTED, name):
            guess = meant(name, ENVIRONMENT, prefix=_PREFIX)
            told = f"the environment variable {name} is unknown to lockkit and is ignored"
            layer.warnings.append(ConfigError(told, hint=guess))
    return layer


def split_query(url: str, source: str) -> tuple[str, Layer]:
    """Take lockkit's settings out of a URL's query. The store reads the remaining options."""
    from urllib.parse import unquote_plus

    layer = Layer(f"query of the URL from {source}")
    place, mark, query = url.partition("?")
    kept: list[str] = []
    for option in query.split("&") if mark else ():
        key, equals, value = option.partition("=")
        setting = IN_QUERY.get(key)
        if setting is None:
            kept.append(option)
        elif key in layer.values:
            layer.problem(f"{key} is given twice")
        elif not equals:
            layer.problem(f"{key} has no value", f"write {key}=...")
        else:
            layer.keep(setting, unquote_plus(value), text=True)
    return place + ("?" + "&".join(kept) if kept else ""), layer


def warn(layer: Layer, *, quietly: bool = False) -> None:
    """Log each warning of a layer once per process; ``quietly``: never, since the caller shows them."""
    if quietly:
        _warned.update(map(str, layer.warnings))
    for warning in layer.warnings:
        warn_once(str(warning))


def warn_once(message: str) -> None:
    """Log a warning, once per process."""
    if message not in _warned:
        _warned.add(message)
        _log.warning("%s", printable(message))
