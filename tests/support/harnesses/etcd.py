"""etcd under test: real servers, shared by all harnesses of a kind in a process, emptied for each harness."""

from __future__ import annotations

import base64
import functools
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from lockkit.testing.harness import Harness, StoredClaim
from support.harnesses.exclusions import EXCLUSIONS
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import covered
from support.servers.etcd_groups import EtcdCluster

__all__ = ["Etcd3Harness", "EtcdClusterHarness", "EtcdHarness"]

_PREFIX = "lockkit/"
_KINDS = {"q": "claims", "c": "notes", "r": "records"}


@functools.cache  # one for all harnesses of a kind, not one per example; a forked child has its parent's
def _started(kind: type[EtcdHarness]) -> Any:
    return kind.start()


class EtcdHarness(Harness):
    """One real server, whose time is real: a lease lasts for whole seconds, and ends up to a second late.

    One harness of a kind is played at a time: they share the server's keys.
    """

    name = "etcd"
    exclusions = EXCLUSIONS.get("etcd", {})
    ttl = 3.0
    short_ttl = 1.0
    grain = 1.0
    request_timeout = 0.6
    examples = (6, 14)
    scheme: ClassVar[str] = "etcd"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._servers = _started(type(self))
        self.wipe()

    @classmethod
    def start(cls) -> Any:
        """Start what all harnesses of this kind share."""
        return EtcdServer()

    def server(self) -> EtcdServer:
        """One that answers."""
        server: EtcdServer = self._servers
        return server

    def call(self, path: str, document: dict[str, Any]) -> Any:
        """Ask the server, not the backend."""
        return self.server().call(path, document)

    def wipe(self) -> None:
        """Throw all keys and leases away."""
        self.server().wipe(_PREFIX)

    @property
    def url(self) -> str:
        return self.scheme + str(self._servers.url()).removeprefix("etcd")

    def leases(self) -> list[str]:
        """The ids of all leases."""
        return self.server().leases()

    def left(self, lease: str) -> int:
        """The whole seconds that a lease has left, rounded towards 0; negative if there is none."""
        return int(self.call("lease/timetolive", {"ID": lease}).get("TTL", 0))

    def outlast(self, seconds: float) -> None:
        # etcd looks for leases that have run out twice a second.
        self.advance(seconds * 1.01)
        end = time.monotonic() + 3.0
        while any(self.left(lease) == 0 for lease in self.leases()) and time.monotonic() < end:
            time.sleep(0.02)

    def queue(self, name: str) -> dict[str, Any]:
        """The keys of a name's queue, by their last part; a guard's ends in ``+``."""
        prefix = f"{_PREFIX}default/q/{quote(name, safe='').replace('.', '%2E')}/"
        kvs = self.call("kv/range", covered(prefix)).get("kvs", [])
        return {base64.b64decode(kv["key"]).decode()[len(prefix) :]: kv for kv in kvs}

    def stored(self, name: str) -> list[StoredClaim]:
        found = self.queue(name)
        claims = []
        values = {key: json.loads(base64.b64decode(kv["value"])) for key, kv in found.items()}
        standing = {value["claim"] for key, value in values.items() if not key.endswith("+")}
        for key, kv in found.items():
            value, guard = values[key], key.endswith("+")
            if guard and value["claim"] in standing:
                continue
            before = self.clock.now()
            left = self.left(kv["lease"])
            if left < 0:
                continue
            claims.append(
                StoredClaim(
                    value["claim"][:12],
                    int(kv["create_revision"]),
                    "LINGERING" if guard else value["state"],
                    value["weight"],
                    value["capacity"],
                    self.clock.now() + left + 1.0,
                    bool(value.get("evicted")),
                    # Rounded towards 0: a lease that is over but not removed has 0 s left for up to a second.
                    earliest=before + left - (left == 0),
                )
            )
        return sorted(claims, key=lambda claim: claim.fence)

    def requests(self) -> int:
        return self.server().requests()

    def forget(self, name: str, claim_id: str) -> None:
        for kv in self.queue(name).values():
            if json.loads(base64.b64decode(kv["value"]))["claim"].startswith(claim_id):
                self.call("lease/revoke", {"ID": kv["lease"]})

    def residue(self) -> dict[str, int]:
        """Keys of every kind."""
        kvs = self.call("kv/range", {**covered(_PREFIX), "keys_only": True}).get("kvs", [])
        keys = [base64.b64decode(kv["key"]).decode() for kv in kvs]
        found = Counter(_KINDS.get(key.split("/")[2], f"strange: {key!r}") for key in keys)
        return {kind: found[kind] for kind in sorted(found)}

    def close(self) -> None:
        self.wipe()


class Etcd3Harness(EtcdHarness):
    """By way of python-etcd3, which must be installed."""

    name = "etcd-grpc"
    scheme = "etcd+grpc"

    @classmethod
    def start(cls) -> Any:
        """Import the library too, which can take longer on a busy machine than a first request may."""
        from lockkit_etcd3 import forks, library

        library.load()
        # Or each child would report it.
        assert forks._here.supported, "something has imported gRPC before lockkit did"  # noqa: SLF001
        return super().start()


class EtcdClusterHarness(EtcdHarness):
    """Three members."""

    examples = (4, 14)

    @classmethod
    def start(cls) -> EtcdCluster:
        return EtcdCluster()

    def server(self) -> EtcdServer:
        members: list[EtcdServer] = self._servers.running
        return members[0]

    def requests(self) -> int:
        return sum(each.requests() for each in self._servers.running)
