"""S8: different names never interact, equal names always do; hostile names are independent or refused."""

from __future__ import annotations

import itertools
import unicodedata

from lockkit.errors import ConfigError
from lockkit.testing.stage import Stage, scenario

__all__ = ["FINE", "REFUSED"]

FINE = (
    "a", "A", "a/b", "a//b", "a/", "/a", "{a}", "a{a}", "..", ".", "../a", "a%2Fb", "a%b", "%", "a b",
    " a", "a ", "*", "a*", "?", "[a]", "a:b", "a;b", "'", '"', "a'; DROP TABLE claims; --", "\\", "a\\b",
    "~", "$HOME", "-rf",
    unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "ß", "ss", "İ", "i", "\u202e", "💡",
    "\u00a0", "\ufeffa", "null", "None", "0", "00", "x" * 512, "x" * 511, "ü" * 256,
)  # fmt: skip
"""Names that some key, path, pattern or statement could take apart; all different."""
REFUSED: tuple[object, ...] = (
    "", "\0", "a\0b", "a\nb", "\x7f", "x" * 513, "ü" * 257, "x" * 10_240, "\ud800", b"a", None, 7, ["a"],
)  # fmt: skip


@scenario("S8-hostile-names")
def hostile_names(stage: Stage) -> None:
    """Hostile names are held together, independently, each busy for other clients; none leaves anything."""
    ours, theirs = stage.client(), stage.client()
    part = stage.shape.holders[0]
    leases = {}
    for name in FINE:
        lease = part.lock(ours, name, ttl=stage.long_ttl).try_acquire()
        assert lease is not None, f"S8: {name!r} interacts with another name"
        leases[name] = stage.kept(lease)
    assert set(ours.names()) == set(FINE)
    for name in FINE:
        (row,) = stage.stored(name)
        assert row.claim_id == leases[name].claim_id
        if part.weight == part.capacity:
            assert part.lock(theirs, name).try_acquire() is None, f"S8: {name!r} is not one lock for all"
        assert theirs.inspect(name).claims[0].name == name
    for at, name in enumerate(FINE):
        leases[name].release()
        assert stage.stored(name) == []
        if at % 10 == 0:
            assert all(len(stage.stored(other)) == 1 for other in FINE[at + 1 :]), (
                f"S8: {name!r} freed another"
            )
    assert theirs.names() == []


@scenario("S8-refused-names", None)
def refused_names(stage: Stage) -> None:
    """Names that no store could keep apart are refused before the store is asked."""
    client, faults = stage.faulty()
    for name in REFUSED:
        for make in (client.lock, client.rwlock, client.inspect):
            error = stage.work(lambda make=make, name=name: make(name)).error()  # type: ignore[misc]
            assert isinstance(error, ConfigError), f"{name!r} was not refused: {error!r}"
    assert faults.log == []


@scenario("S8-namespaces", None)
def namespaces(stage: Stage) -> None:
    """Equal names in different namespaces are different locks, also if one namespace is another's prefix."""
    spaces = ("default", "prod", "prod.a", "prod-a", "p")
    leases = []
    for space in spaces:
        client = stage.client(namespace=space)
        leases.append(stage.take(client.lock("a", ttl=stage.long_ttl)))
        leases.append(stage.take(client.lock("prod/a", ttl=stage.long_ttl)))
    for space in spaces:
        client = stage.client(namespace=space)
        assert client.names() == ["a", "prod/a"]
        assert client.lock("a").try_acquire() is None
    assert len({lease.claim_id for lease in leases}) == len(leases)


@scenario("S8-prefixes", None)
def prefixes(stage: Stage) -> None:
    """``names(prefix)`` treats its argument as a prefix and nothing more."""
    client = stage.client()
    for name in ("a", "a/b", "ab", "A", "a%", "a_", "*", "b"):
        stage.take(client.lock(name, ttl=stage.long_ttl))
    for prefix, found in (
        ("a", ["a", "a%", "a/b", "a_", "ab"]),
        ("a%", ["a%"]),
        ("*", ["*"]),
        ("_", []),
        ("A", ["A"]),
    ):
        for deep in (False, True):
            assert client.names(prefix, deep=deep) == found, f"names({prefix!r})"


@scenario("S8-pairs", None)
def pairs(stage: Stage) -> None:
    """Evict and resize act on the given name and no other."""
    client = stage.client()
    names = FINE[:12]
    leases = {name: stage.take(client.semaphore(name, 2, ttl=stage.long_ttl)) for name in names}
    for name, other in itertools.pairwise(names):
        assert client.evict(other, leases[name].claim_id, reason="kit", now=True).outcome == "ABSENT"
    client.resize(names[0], 5)
    assert [stage.stored(name)[0].capacity for name in names] == [5] + [2] * (len(names) - 1)
