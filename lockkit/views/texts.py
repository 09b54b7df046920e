"""Texts that documents and tables share: the address of a store, the state of a lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from lockkit.config.places import STORE_FILE
from lockkit.errors import LockkitError

if TYPE_CHECKING:
    from lockkit.facts import LockInfo
    from lockkit.sync.client import Client

__all__ = ["located", "lock_state"]


def located(client: Client) -> str:
    """The store's URL, secrets redacted; it always names the file of the embedded store."""
    head, mark, options = client.url.partition("?")
    if head == "sqlite:":
        from urllib.parse import quote

        try:
            file = client.config.state_place().path / STORE_FILE
        except LockkitError:
            return client.url
        head = f"sqlite:{quote(os.fsencode(file))}"
    return head + mark + options


def lock_state(info: LockInfo) -> Literal["held", "lingering", "waiting", "free"]:
    """The state of a lock: held, lingering (ended, blocks), waiting (between two holders), or free."""
    states = {one.state for one in info.claims}
    if "HELD" in states:
        return "held"
    if "LINGERING" in states:
        return "lingering"
    return "waiting" if states else "free"
