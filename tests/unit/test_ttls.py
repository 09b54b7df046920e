"""The ttl that a store grants in place of one that it does not have."""

from __future__ import annotations

import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lockkit
from lockkit.config import config as configuration
from lockkit.errors import CapabilityError, ConfigError
from lockkit.facts import Capabilities, Owner
from lockkit.hooks import hookimpl
from lockkit.protocol import acquiring
from lockkit.protocol.hold import span
from lockkit.shared.options import longer_ttl, terms_of
from lockkit.store.spi import BackendSpec, Granted
from lockkit.store.ttls import UsualTtl, fitted, misfit
from lockkit.values.durations import LONGEST
from lockkit_memory import CAPABILITIES
from lockkit_memory.backend import MemoryBackend
from lockkit_memory.store import MemoryStore

SHORTEST, MOST = 2.0, 8.0
NARROW = CAPABILITIES._replace(min_ttl=SHORTEST, max_ttl=MOST, ttl_limits="change its switch")


# -- the rule


@given(
    st.floats(0.001, LONGEST),
    st.tuples(st.floats(0.001, LONGEST), st.floats(0.001, LONGEST)).map(sorted),
)
@example(3.0, (3.0, 3.0))
def test_what_is_granted_is_the_nearest_that_the_store_has(asked, limits):
    low, high = limits
    can = Capabilities("process", min_ttl=low, max_ttl=high)
    granted = fitted(asked, can)

    assert low <= granted <= high
    assert fitted(granted, can) == granted
    if low <= asked <= high:
        assert granted == asked
    else:
        assert granted == (low if asked < low else high)


def test_it_is_told_what_was_asked_what_is_granted_by_whom_and_how_to_get_the_asked_one():
    told = misfit(60.0, MOST, "mine://store", NARROW)

    for word in ("60 s", "8 s", "mine://store", "change its switch"):
        assert word in told


def test_where_nothing_can_be_changed_the_limits_are_told():
    assert "at least 0.1 s" in misfit(0.05, 0.1, "memory:", CAPABILITIES)


# -- the terms of a lock


def terms(tmp_path, options, can=NARROW, **keywords):
    loaded = configuration.load(
        "memory:", environ={}, cwd=tmp_path, home=tmp_path, etc=tmp_path / "none", **keywords
    )
    return terms_of(can, loaded, Owner(), "a", "mutex", 1, 1, options)


@pytest.mark.parametrize("asked, granted", [(1, SHORTEST), (2, 2), (5.5, 5.5), (8, 8), (9, MOST)])
def test_a_ttl_in_code_is_fitted_and_the_asked_one_kept(tmp_path, asked, granted):
    made = terms(tmp_path, {"ttl": asked})
    assert (made.ttl, made.asked) == (granted, asked)


def test_a_ttl_of_the_configuration_is_fitted_and_the_asked_one_kept(tmp_path):
    made = terms(tmp_path, {}, ttl=60)
    assert (made.ttl, made.asked) == (MOST, 60)


@pytest.mark.parametrize("options", [{}, {"ttl": UsualTtl(60)}])
def test_a_default_is_fitted_silently_even_where_a_stated_one_is_refused(tmp_path, options):
    made = terms(tmp_path, options, strict=True)
    assert (made.ttl, made.asked) == (MOST, None)


@pytest.mark.parametrize("options, keywords", [({"ttl": 60}, {}), ({"ttl": 1}, {}), ({}, {"ttl": 60})])
def test_strict_refuses_a_stated_ttl_and_says_what_would_be_granted(tmp_path, options, keywords):
    with pytest.raises(ConfigError, match=r"strict refuses a ttl of .* this store grants [28] s") as refused:
        terms(tmp_path, options, strict=True, **keywords)
    assert "change its switch" in refused.value.hint
    assert ("argument" in refused.value.hint) == bool(keywords)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "60"])
def test_what_is_no_ttl_at_all_is_refused_as_before(tmp_path, ttl):
    with pytest.raises(ConfigError):
        terms(tmp_path, {"ttl": ttl})


# -- longer ttls


@pytest.mark.parametrize("asked, present, granted", [(5, 3, 5), (60, 3, MOST), (60, 8, 8), (60, 20, 20)])
def test_an_extension_is_fitted_and_never_shortens(asked, present, granted):
    assert longer_ttl(asked, present, NARROW) == granted


def test_an_extension_below_the_present_ttl_is_refused_and_with_strict_one_beyond_the_limit():
    with pytest.raises(ConfigError, match="below the present"):
        longer_ttl(5, 6, NARROW)
    with pytest.raises(ConfigError, match="strict refuses"):
        longer_ttl(60, 6, NARROW, strict=True)
    assert longer_ttl(7, 6, NARROW, strict=True) == 7
    with pytest.raises(CapabilityError):
        longer_ttl(60, 6, NARROW._replace(fixed_ttl=True))


# -- the lease


class Narrow(MemoryBackend):
    """A store that learns only at a grant that it keeps claims for so long."""

    capabilities = NARROW
    keeps: float | None = None

    def acquire(self, claim, create, budget):
        if self.keeps is not None:
            claim = claim._replace(terms=claim.terms._replace(ttl=self.keeps))
        answer = super().acquire(claim, create, budget)
        return answer._replace(ttl=self.keeps) if isinstance(answer, Granted) else answer


class Plugin:
    """Offers the store."""

    keeps: float | None = None

    @hookimpl
    def lockkit_backends(self):
        """Offer the store under a scheme of its own."""
        return [BackendSpec("narrow", ("narrow",), self.open, "a store with limits", NARROW)]

    def open(self, url, options):
        backend = Narrow(MemoryStore(options.clock), options)
        backend.keeps = self.keeps
        return backend


@pytest.fixture
def plugin():
    return Plugin()


@pytest.fixture
def client(request, tmp_path, plugin):
    def make(**settings):
        client = lockkit.connect(
            f"narrow://{request.node.name.encode().hex()[:60]}",
            state_dir=str(tmp_path),
            plugins=[plugin],
            **settings,
        )
        request.addfinalizer(client.close)
        return client

    return make


def told(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_lease_has_the_granted_ttl_and_the_log_says_so_once(client, caplog):
    mine = client()
    for _ in range(3):
        with mine.lock("a", ttl=60).acquire(timeout=1) as lease:
            assert lease.ttl == MOST
            assert lease.remaining() <= span(MOST, NARROW.drift, NARROW.margin)
    (message,) = told(caplog)
    assert "60 s" in message
    assert "8 s" in message
    with mine.lock("a", ttl=1).acquire(timeout=1) as lease:
        assert lease.ttl == SHORTEST
    assert len(told(caplog)) == 2


def test_a_default_and_a_ttl_that_the_store_has_are_not_worth_a_word(client, caplog):
    mine = client()
    with mine.lock("a").acquire(timeout=1) as lease:
        assert lease.ttl == MOST
    with mine.lock("a", ttl=5).acquire(timeout=1) as lease:
        assert lease.ttl == 5
    assert told(caplog) == []


def test_an_extension_beyond_the_limit_is_fitted_and_told(client, caplog):
    with client().lock("a", ttl=5).acquire(timeout=1) as lease:
        lease.extend(60)
        assert lease.ttl == MOST
        assert "60 s" in told(caplog)[0]
        lease.extend(60)
        assert lease.ttl == MOST
    assert len(told(caplog)) == 1


def test_validity_counts_the_ttl_that_the_store_has_granted(client, plugin, caplog):
    plugin.keeps = 3.0
    with client().lock("a", ttl=8).acquire(timeout=1) as lease:
        assert lease.ttl == 3.0
        assert lease.remaining() <= span(3.0, NARROW.drift, NARROW.margin)
        lease.confirm()
        assert lease.remaining() <= span(3.0, NARROW.drift, NARROW.margin)
    assert "grants 3 s" in told(caplog)[0]


def test_validity_from_the_asked_ttl_is_noticed(client, plugin, monkeypatch):
    plugin.keeps = 3.0
    hold = acquiring.Hold

    def of_the_asked(claim, *rest, **more):
        return hold(claim._replace(terms=claim.terms._replace(ttl=claim.terms.asked)), *rest, **more)

    monkeypatch.setattr(acquiring, "Hold", of_the_asked)
    with client().lock("a", ttl=8).acquire(timeout=1) as lease:
        assert lease.remaining() > span(3.0, NARROW.drift, NARROW.margin), "S3: the mistake does not show"
