"""URLs for etcd: the parts that they may have, and the errors of those that may not be."""

from __future__ import annotations

import pytest

from lockkit.errors import ConfigError
from lockkit.testing.troubles import SECRET
from lockkit_etcd.address import parse
from support.servers.certificates import Certificates


@pytest.mark.parametrize(
    "url,hosts",
    [
        ("etcd://", [("localhost", 2379)]),
        ("etcd://one", [("one", 2379)]),
        ("etcd://one:1,two:2,three", [("one", 1), ("two", 2), ("three", 2379)]),
        ("etcd://[::1]:4,127.0.0.1", [("::1", 4), ("127.0.0.1", 2379)]),
        ("etcds://user:pass@one,two/", [("one", 2379), ("two", 2379)]),
    ],
)
def test_the_members_are_named_one_by_one(url, hosts):
    assert list(parse(url).hosts) == hosts


@pytest.mark.parametrize("scheme", ["etcd", "etcds", "etcd+grpc", "etcds+grpc"])
def test_the_scheme_says_whether_there_is_tls(scheme):
    assert parse(f"{scheme}://one").tls is scheme.startswith("etcds")


def test_a_password_is_decoded_and_never_shown():
    address = parse(f"etcd://us%40er:{SECRET}%2F@one")
    assert (address.user, address.password) == ("us@er", f"{SECRET}/")
    assert SECRET not in repr(address)
    assert SECRET not in address.shown


def test_files_are_for_tls_and_must_be_readable(tmp_path):
    files = Certificates(tmp_path)
    there = files.ca
    assert parse(f"etcds://one?ca_file={there}").files.ca_file == str(there)
    for url, why in (
        (f"etcd://one?ca_file={there}", "needs TLS"),
        (f"etcds://one?ca_file={tmp_path}/missing", "cannot read"),
        (f"etcds://one?cert_file={files.client}", "contains no key"),
        (f"etcds://one?ca_file={files.client_key}", "is not a certificate"),
        ("etcds://one?colour=blue", "allowed options"),
        ("etcd://one/2", "no databases"),
        ("etcd://one:99999", "host and port"),
        ("etcd://one,two:x", "host and port"),
        ("etcd://user@one", "a password"),
        (f"etcd://user:{SECRET}", "host and port"),
        (f"etcd://user:{SECRET}/x@one", "no databases|host and port"),
    ):
        with pytest.raises(ConfigError, match=why) as told:
            parse(url)
        assert SECRET not in str(told.value)
