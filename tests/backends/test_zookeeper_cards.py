"""Cards on ZooKeeper: holders that fail in a layer of the release (S4, S7, L1), and an overtaken resize."""

from __future__ import annotations

from support.cards import CardPlays
from support.servers.zookeeper import ZooKeeperServer


class TestCards(CardPlays):
    """On ZooKeeper."""

    SERVER = ZooKeeperServer
    OPTIONS = "?tick={server.tick}"
