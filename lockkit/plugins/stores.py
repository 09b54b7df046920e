"""The stores that lockkit ships, by URL scheme, found without loading the others."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit._version import __version__
from lockkit.config.settings import nearest
from lockkit.errors import ConfigError
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.redaction import redact

__all__ = ["SCHEMES", "ShippedStore", "scheme_of", "unknown_scheme"]


class ShippedStore(NamedTuple):
    """A store that lockkit ships: the plugin's name, its package, and the extra for its client library."""

    name: str
    module: str
    extra: str | None = None


_MEMORY = ShippedStore("memory", "lockkit_memory")
_SQLITE = ShippedStore("sqlite", "lockkit_sqlite")
_REDIS = ShippedStore("redis", "lockkit_redis", "redis")
_ETCD = ShippedStore("etcd", "lockkit_etcd", "etcd")
_ETCD3 = ShippedStore("etcd3", "lockkit_etcd3", "python-etcd3")
_ZOOKEEPER = ShippedStore("zookeeper", "lockkit_zookeeper", "zookeeper")

SCHEMES: Mapping[str, ShippedStore] = {
    "memory": _MEMORY,
    "sqlite": _SQLITE,
    "redis": _REDIS,
    "rediss": _REDIS,
    "redis+cluster": _REDIS,
    "redis+sentinel": _REDIS,
    "unix": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "valkey+cluster": _REDIS,
    "valkey+sentinel": _REDIS,
    "etcd": _ETCD,
    "etcds": _ETCD,
    "etcd+grpc": _ETCD3,
    "etcds+grpc": _ETCD3,
    "zookeeper": _ZOOKEEPER,
    "zookeepers": _ZOOKEEPER,
    "zk": _ZOOKEEPER,
}
"""The URL schemes of lockkit's own stores. No other plugin can take them over."""
_MARKS = str.maketrans("", "", "+.-")
"""Drops the characters that a scheme may contain beside letters and digits."""


def scheme_of(url: str) -> str:
    """The scheme of a store's URL, in lower case.

    Raises:
        ConfigError: The URL has no scheme.
    """
    scheme, colon, _ = url.partition(":")
    if not (colon and scheme.isascii() and scheme[:1].isalpha() and scheme.translate(_MARKS).isalnum()):
        raise ConfigError(
            f"not a store's URL: {redact(url)!r}",
            hint="write for instance sqlite:, memory: or redis://localhost:6379/0",
        )
    return scheme.lower()


def unknown_scheme(scheme: str, known: Mapping[str, object]) -> ConfigError:
    """The error for a scheme that no plugin offers. It says what to install, or which schemes there are."""
    store = SCHEMES.get(scheme)
    if store is not None:
        needed = f"lockkit[{store.extra}]" if store.extra else "lockkit"
        return ConfigError(
            f"no store for {scheme}: URLs is installed:"
            f" this lockkit ({__version__}) does not contain {store.module}",
            hint=f'to install a version that does: pip install --upgrade "{needed}"',
        )
    close = nearest(scheme, {*known, *SCHEMES})
    hint = f"did you mean {close}:? The schemes are" if close else "the schemes are"
    return ConfigError(f"no plugin offers {scheme}: URLs", hint=f"{hint} {', '.join(sorted(known))}")
