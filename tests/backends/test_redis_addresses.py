"""URLs for Redis: what is refused, and that no message tells a password."""

from __future__ import annotations

import pytest

pytest.importorskip("redis")

from lockkit.errors import ConfigError
from lockkit.plugins import PluginManager
from lockkit.store.spi import OpenOptions
from lockkit.testing.troubles import SECRET, told
from lockkit_redis.address import parse
from lockkit_redis.backend import open_store
from lockkit_redis.unreachable import of_another_kind


@pytest.mark.parametrize(
    "url, says",
    [
        ("redis://h?database=1", "no such option: database"),
        ("redis://h#1", "no such option"),
        ("redis://h:port", "host and port"),
        ("redis://h:65536", "host and port"),
        ("redis://h:-1", "host and port"),
        ("redis://h/x", "the database must be a whole number"),
        ("redis://h/-1", "the database must be a whole number"),
        ("redis://h/1?db=2", "named twice"),
        ("redis://h?min_replicas=many", "min_replicas must be a whole number"),
        ("redis://h?ca_file=/nowhere", "needs TLS|cannot read"),
        ("rediss://h?ca_file=/nowhere", "cannot read /nowhere"),
        ("rediss://h?ca_file=~/nope.pem", "cannot read ~/nope.pem"),
        ("rediss://h?ca_file=/tmp/no%20pe+x.pem", "cannot read /tmp/no pe x.pem"),
        ("redis://[::1", "not a URL for Redis"),
        ("unix://h/run/redis.sock", "absolute path"),
        ("redis:localhost", r"redis:\*\*\*: a host is written after two slashes"),
        ("redis:localhost:6379", "a host is written after two slashes"),
        ("redis:/localhost/0", "a host is written after two slashes"),
        ("valkey:localhost", "a host is written after two slashes"),
        ("redis+cluster:h1,h2", "a host is written after two slashes"),
        ("redis+sentinel://h1,h2", "names no service"),
        ("valkey+sentinel://h1,h2", "names no service"),
        ("redis+sentinel://h1,h2/kit?tls=maybe", "tls must be yes or no"),
    ],
)
def test_a_url_that_says_what_does_not_exist_is_refused_before_anything_is_sent(url, says):
    with pytest.raises(ConfigError, match=says):
        open_store(url, OpenOptions())


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:{}@h?no=1",
        "redis://u:{}@h:port",
        "redis://:x#{}@h:1/0",
        "redis://:x/{}@h:1/0",
        "redis://:x?{}@h:1/0",
        "redis://:{}#x@h:1/0",
        "redis://:{}/x@h:1/0",
        "redis://:{}?x@h:1/0",
        "redis://:{}:x",
        "redis://u:{}:6379/0",
        "redis://:[{}@h:1/0",
        "redis+sentinel://h/kit?sentinel_password={}&no=1",
        "redis+sentinel://h/kit/x?sentinel_password={}",
        "unix://:{}@/run/redis.sock?no=1",
        "redis::{}@h",
        "redis:u:{}@h",
        "redis:/u:{}",
        "redis+cluster::{}@h",
        "rediss://:{}@h?ca_file=/nowhere",
        "rediss://h?ca_file=u:{}@h",
        "rediss://h?ca_file=~/{}@%20h",
        "rediss://:{}@h?cert_file=/nowhere&key_file=/nowhere",
        "valkey+sentinel://h/kit?sentinel_password={}&ca_file=/nowhere&tls=yes",
    ],
)
def test_no_bad_url_tells_its_password(url):
    with pytest.raises(ConfigError) as caught:
        open_store(url.format(SECRET), OpenOptions())

    assert SECRET not in told(caught.value)


@pytest.mark.parametrize(
    "url",
    ["redis+cluster://h1,h2", "redis+sentinel://u:pw@h1,h2/kit/1?tls=yes", "redis://h:1/2", "rediss://h"],
)
def test_by_the_name_of_valkey_it_is_the_same(url):
    theirs = url.replace("rediss", "valkeys").replace("redis", "valkey")

    assert parse(theirs)._replace(shown="") == parse(url)._replace(shown="")
    assert PluginManager().backend(theirs).name == "redis"


def test_a_mistake_names_the_url_to_write_of_its_kind():
    for url, hint in (
        ("redis:localhost", "redis://host:6379/0"),
        ("redis+cluster:localhost", "redis+cluster://host1:6379"),
        ("redis+sentinel:localhost", "redis+sentinel://host1,host2"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse(url)
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    "url, mode, hint",
    [
        ("redis://[::1]:7000", "cluster", "write redis+cluster://[::1]:7000"),
        ("rediss://[::1]:7000", "cluster", "write redis+cluster://[::1]:7000?tls=yes"),
        ("rediss://[::1]:7000", "sentinel", "write redis+sentinel://[::1]:7000/SERVICE?tls=yes"),
        ("redis+cluster://[::1]:7000?tls=yes", "standalone", "write rediss://[::1]:7000"),
    ],
)
def test_the_url_to_write_instead_keeps_tls_and_the_form_of_the_address(url, mode, hint):
    told = of_another_kind(mode, ("::1", 7000), parse(url))

    assert told is not None
    assert told.error.hint == hint


def test_a_server_of_a_kind_that_is_not_known_is_taken_for_what_the_url_says():
    for url in ("redis://h", "redis+cluster://h", "redis+sentinel://h/kit"):
        assert of_another_kind("", ("h", 1), parse(url)) is None
        assert of_another_kind("of another world", ("h", 1), parse(url)) is None


def test_a_parsed_address_does_not_show_its_passwords():
    address = parse(f"redis+sentinel://u:{SECRET}@h/kit?sentinel_user=s&sentinel_password={SECRET}")

    assert address.password == SECRET == address.sentinel[1]
    assert SECRET not in repr(address)
