"""Cards on etcd: a holder that goes wrong in a layer of its release (S4, S7, L1), and a resize that a claim for a whole card overtakes."""

from __future__ import annotations

from support.cards import CardPlays
from support.servers.etcd import EtcdServer


class TestCards(CardPlays):
    """On etcd."""

    SERVER = EtcdServer
