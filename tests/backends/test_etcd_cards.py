"""Cards on etcd: holders that fail in a layer of the release (S4, S7, L1), and an overtaken resize."""

from __future__ import annotations

from support.cards import CardPlays
from support.servers.etcd import EtcdServer


class TestCards(CardPlays):
    """On etcd."""

    SERVER = EtcdServer
