"""Cards on Redis: holders that fail in a layer of the release (S4, S7, L1), and an overtaken resize."""

from __future__ import annotations

from support.cards import CardPlays
from support.servers.redis import RedisServer


class TestCards(CardPlays):
    """On Redis."""

    SERVER = RedisServer
