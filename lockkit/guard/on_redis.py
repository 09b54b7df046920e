"""The gate before a Redis key: one Lua script compares the fence and writes the value."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lockkit.errors import (
    BackendError,
    BackendUnavailable,
    ConfigError,
    IncompatibleLayout,
    LockkitError,
    OutcomeUnknown,
    PermissionDenied,
)
from lockkit.guard.gate import checked_key
from lockkit.guard.record import SUFFIX, Record
from lockkit.guard.swapping import read_record
from lockkit.store.spi import Refused, Unknown

if TYPE_CHECKING:
    from redis import Redis, RedisCluster

__all__ = ["RedisKey", "record_key"]

_LARGEST = 512 * 1024 * 1024
_HOPS = 4
_REFUSALS: tuple[tuple[tuple[str, ...], type[LockkitError], bool, str], ...] = (
    # redis-py classes or Redis words; what to raise, whether to repeat, what to do. No value was written.
    (
        ("NoPermissionError", "NOPERM", "ACL failure", "NOAUTH"),
        PermissionDenied,
        False,
        "the user needs EVAL, GET and SET on the key and on {record!r}",
    ),
    (("WRONGTYPE",), IncompatibleLayout, False, "guard another key"),
    (("OutOfMemoryError", "OOM command"), BackendUnavailable, False, "raise maxmemory"),
    (("ClusterCrossSlotError", "CROSSSLOT", "unknown command"), BackendError, False, "use Redis, or Valkey"),
    (
        ("BusyLoadingError", "ClusterDownError", "TryAgainError", "MasterDownError", "ReadOnlyError"),
        BackendUnavailable,
        True,
        "this passes",
    ),
    (("READONLY", "MISCONF", "NOREPLICAS", "BUSY "), BackendUnavailable, True, "look at the server's log"),
)


@cache
def _script(name: str) -> bytes:
    return files("lockkit.guard").joinpath("lua", f"{name}.lua").read_bytes()


def record_key(key: bytes) -> bytes:
    """The record's key: the key with an ending, in braces without a hash tag: in the same slot of a Cluster.

    Raises:
        ConfigError: The key has braces that are no hash tag, so no other key can be put in its slot by name.
    """
    _, opened, rest = key.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    if opened and closed and tag:
        return key + SUFFIX.encode()
    if b"}" in key:
        raise ConfigError(f"the braces in {key!r} are no hash tag", hint="use a key without }, or with {tag}")
    return b"{" + key + b"}" + SUFFIX.encode()


class RedisKey:
    """One string key of Redis or Valkey; see :class:`lockkit.guard.gate.Resource`.

    The requests use connections of the client's pool, without its library's repetitions: each answer then
    belongs to the one request sent.
    """

    largest: int | None = _LARGEST

    def __init__(self, client: Redis | RedisCluster, key: str | bytes) -> None:
        if not (hasattr(client, "connection_pool") or hasattr(client, "get_node_from_key")) or hasattr(
            client, "__aenter__"
        ):
            raise ConfigError(f"not a synchronous client of redis-py: {type(client).__name__}")
        raw = checked_key(key)
        self._client: Any = client
        self._keys = record_key(raw), raw
        self.where = f"the Redis key {raw.decode(errors='backslashreplace')!r}"

    def step(self, asked: Record, value: bytes | None, end: float) -> Record | None:  # noqa: ARG002
        fence, opening, step = str(asked).split(".")
        more = () if value is None else (value,)
        verdict, stored = self._run("step", fence, opening, step, *more)
        if verdict == b"OTHER":
            read_record(stored, self.where)
            raise AssertionError("the script reads records as Python does")
        if verdict == b"STALE":
            return read_record(stored or None, self.where) or Record(0, "")
        return None

    def look(self, end: float) -> tuple[Record | None, bytes | None]:  # noqa: ARG002
        try:
            stored, value = self._run("look")
        except Unknown as unknown:  # a read
            raise Refused(BackendUnavailable(unknown.error.message, hint=unknown.error.hint)) from unknown
        return read_record(stored, self.where), value

    def forget(self) -> None:
        self._ask("DEL", *self._keys)

    def _run(self, script: str, *words: str | bytes) -> list[Any]:
        answer: list[Any] = self._ask("EVAL", _script(script), 2, *self._keys, *words)
        return answer

    def _ask(self, *command: object) -> Any:
        """Send one command once, and follow the answers of a Cluster to the other node.

        Raises:
            Refused: The server answered that it was not done.
            Unknown: No answer, or one that does not say so.
        """
        client, asking = self._node(), False
        for _ in range(_HOPS):
            try:
                return _send(client, command, asking=asking)
            except Refused:
                raise
            except Exception as error:
                kinds = {kind.__name__ for kind in type(error).__mro__}
                if "AskError" in kinds:  # a MovedError is one, too
                    asking = "MovedError" not in kinds
                    client = self._redirected(error, moved=not asking)
                    continue
                raise self._failed(error, kinds) from error
        raise Refused(BackendUnavailable(f"{self.where} moves from node to node"))

    def _node(self) -> Any:
        """The client of the node that has the key."""
        try:
            if not hasattr(self._client, "get_node_from_key"):
                return self._client
            node = self._client.get_node_from_key(self._keys[1])
            return self._client.get_redis_connection(node)
        except Exception as error:
            raise Refused(BackendUnavailable(f"cannot reach {self.where}: {error}")) from error

    def _redirected(self, error: Any, *, moved: bool) -> Any:
        if moved:
            # A client of one server has no map; without it the next attempt is redirected, too.
            with suppress(Exception):
                nodes = self._client.nodes_manager
                learn = getattr(nodes, "move_slot", None) or nodes.update_moved_exception  # before redis-py 6
                learn(error)
        node = None
        if hasattr(self._client, "get_node"):
            node = self._client.get_node(host=error.host, port=error.port)
        if node is None:
            raise Refused(BackendUnavailable(f"{self.where} is on another node: {error}"))
        return self._client.get_redis_connection(node)

    def _failed(self, error: Exception, kinds: set[str]) -> Refused | Unknown:
        text = " ".join(str(error).split()) or type(error).__name__
        told = f"{self.where}: {text}"
        for words, kind, again, hint in _REFUSALS:
            if any(word in kinds or word in text for word in words):
                record = self._keys[0].decode(errors="replace")
                return Refused(kind(told, hint=hint.format(record=record)), retry=again)
        # Not in the list, as the error of a proxy: it may come after the script has run.
        return Unknown(OutcomeUnknown(told, hint="is the server running, and reachable?"))


def _send(client: Any, command: tuple[object, ...], *, asking: bool) -> Any:
    pool = client.connection_pool
    try:
        connection = _connected(pool)
    except Exception as error:  # nothing was sent
        login = "Auth" in type(error).__name__
        kind = PermissionDenied if login else BackendUnavailable
        raise Refused(kind(f"cannot connect: {error}"), retry=not login) from error
    try:
        if asking:
            connection.send_command("ASKING")
            connection.read_response()
        connection.send_command(*command)
        return connection.read_response(disable_decoding=True)
    except BaseException as error:
        if not isinstance(error, Exception) or "ResponseError" not in {
            kind.__name__ for kind in type(error).__mro__
        }:
            connection.disconnect()  # it owes an answer
        raise
    finally:
        pool.release(connection)


def _connected(pool: Any) -> Any:
    try:
        return pool.get_connection()
    except TypeError:  # before redis-py 6
        return pool.get_connection("EVAL")
