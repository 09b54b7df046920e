"""The memory of ten thousand locks: everything but the name is kept once for equal terms."""

from __future__ import annotations

import pytest

from lockkit.store.spi import Terms

ONE, OTHER, LONGER = Terms("a", 10.0), Terms("b", 10.0), Terms("b", 20.0)


def _redis(terms):
    pytest.importorskip("redis")
    from lockkit_redis.packed_terms import PackedTerms

    packed = PackedTerms.of("default", terms, "channel", cluster=False)
    return packed.keys, packed.words.acquire, packed.words.again, packed.words.release


def _etcd(terms):
    from lockkit_etcd.rows import PackedTerms

    packed = PackedTerms.of("default", terms, "client")
    return packed.queue.key, packed.tail


def _zookeeper(terms):
    pytest.importorskip("kazoo")
    from lockkit_zookeeper.node_data import PackedTerms

    packed = PackedTerms.of(terms, f"/default/{terms.name}")
    return packed.parent, packed.data


@pytest.mark.parametrize("packed", [_redis, _etcd, _zookeeper])
def test_a_lock_adds_only_its_own_keys(packed):
    (key, *words), (other_key, *other_words) = packed(ONE), packed(OTHER)

    assert key != other_key
    assert all(word is other for word, other in zip(words, other_words, strict=True))


@pytest.mark.parametrize("packed", [_redis, _etcd, _zookeeper])
def test_words_are_not_shared_with_a_lock_of_another_ttl(packed):
    (key, *words), (same_key, *other_words) = packed(OTHER), packed(LONGER)

    assert key == same_key
    assert words[0] != other_words[0]
