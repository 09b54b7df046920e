"""The capabilities that a store declares may depend on its URL."""

from __future__ import annotations

import pytest

from lockkit.errors import CapabilityError, ConfigError
from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.store.spi import BackendSpec
from lockkit.sync.client import connect

PLAIN = Capabilities(scope="fleet")


class Plugin:
    """A store that has no min_hold where its URL says so."""

    @hookimpl
    def lockkit_backends(self):
        return [BackendSpec("mine", ("mine",), self.open, "mine", PLAIN, declared=self.declared)]

    @staticmethod
    def open(url, options):
        raise AssertionError("nothing is to be opened")

    @staticmethod
    def declared(url):
        if url.endswith("bad"):
            raise ConfigError("not a URL of mine")
        return PLAIN._replace(min_hold="short" not in url)


def test_a_lock_is_refused_by_what_its_url_declares_before_anything_is_opened():
    assert connect("mine://long", plugins=[Plugin()]).capabilities.min_hold
    client = connect("mine://short", plugins=[Plugin()])
    assert not client.capabilities.min_hold
    with pytest.raises(CapabilityError, match="this store does not support min_hold") as refused:
        client.lock("a", min_hold=1.0)
    assert "for 1 s yourself" in (refused.value.hint or "")


def test_a_url_that_is_not_allowed_is_told_before_anything_is_opened():
    with pytest.raises(ConfigError, match="not a URL of mine"):
        connect("mine://bad", plugins=[Plugin()])
