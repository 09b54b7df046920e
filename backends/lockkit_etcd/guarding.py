"""Single transactions for ``lockkit.guard.etcd``, with an etcd store's members, login and errors."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from lockkit.lib.clock import SYSTEM
from lockkit.store.exchanges import Exchange
from lockkit.store.spi import Refused
from lockkit_etcd.address import parse
from lockkit_etcd.failures import Forbidden
from lockkit_etcd.gateway import Gateway, connect

__all__ = ["Transactions"]

_REQUEST = 2.0
"""Seconds that one request may take."""
_RIGHTS = "the role needs readwrite on the key and on its record"


class Transactions:
    """A connection to the members that a URL names. See :class:`lockkit.guard.Transactor`.

    Args:
        url: The URL of an etcd store.

    Raises:
        ConfigError: The URL is not allowed.
    """

    def __init__(self, url: str) -> None:
        self._address = parse(url)
        self._gateway: Gateway = connect(self._address, SYSTEM).fresh()

    def transaction(self, txn: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Send a transaction once, over a connection of its own.

        Raises:
            Refused: The transaction was not executed.
            Unknown: There was no answer, or an answer that does not say whether it was executed.
        """
        if self._gateway.inherited():
            self._gateway = connect(self._address, SYSTEM).fresh()
        exchange: Exchange[Mapping[str, Any]] = self._gateway.raw(
            json.dumps(txn).encode(), time.monotonic() + _REQUEST
        )
        try:
            return self._gateway.perform(exchange)
        except Forbidden as refusal:
            refusal.error.hint = _RIGHTS
            raise Refused(refusal.error, retry=False) from refusal
