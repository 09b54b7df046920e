"""Hosts renamed while cards are held, quarantined or waited for: no card is held under two names."""

from __future__ import annotations

import contextlib
import os

import pytest

import lockkit
import lockkit.gpu
from lockkit.errors import AcquireTimeout, BackendUnavailable
from lockkit.gpu import homes
from lockkit.gpu.enlisting import enlist
from lockkit.gpu.faulty import take_out
from lockkit.gpu.fleet import fleet
from lockkit.gpu.numbered import NumberedCards
from lockkit.gpu.quarantine import give_back, quarantine, quarantine_faulty, quarantined
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.gpu.views import FleetView, HostView
from lockkit.notes.members import pool_name
from lockkit.notes.records import fixed_capacity
from lockkit.observe.recovery import recover
from lockkit.plugins import PluginManager
from lockkit.sync.client import Client
from lockkit.values.identity import this_process

CARD, OTHER = (card.uuid for card in SimulatedProvider(2).snapshot().devices)
ME = this_process()


@pytest.fixture(autouse=True)
def host(monkeypatch, tmp_path):
    """A machine with two cards, as their driver shows them under every name of the host."""
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    for name in ("CUDA_VISIBLE_DEVICES", "LOCKKIT_GPU_HOST"):
        monkeypatch.delenv(name, raising=False)
    machine = Machine(monkeypatch)
    monkeypatch.setattr(PluginManager, "devices", lambda _self: (machine,))
    with contextlib.ExitStack() as machine.ends:
        yield machine


class Machine(SimulatedProvider):
    """A machine that can be started again, and whose processes connect under whatever name it has."""

    def __init__(self, monkeypatch):
        super().__init__(2)
        self._monkeypatch = monkeypatch
        self.store = f"memory://{os.urandom(8).hex()}"
        self.shown = 2

    def snapshot(self):
        seen = super().snapshot()
        return seen._replace(devices=seen.devices[: self.shown])

    def boot(self, boot):
        self._monkeypatch.setattr(homes, "this_process", lambda: ME._replace(boot_id=boot))

    def called(self, name):
        return self.ends.enter_context(lockkit.connect(self.store, gpu_host=name))


def take(client, **request):
    return lockkit.gpu.pool(client).acquire(timeout=request.pop("timeout", 0), **request)


def refused(client, **request):
    with pytest.raises(AcquireTimeout) as error:
        take(client, ids=[CARD], **request).release()
    return str(error.value)


def of_old_version(client, name, weight=None):
    """A holder whose version of lockkit knows no homes."""
    enlist(client, name, [CARD])
    capacity = fixed_capacity(getattr(client.record(pool_name(f"gpu/{name}", CARD)), "value", {})) or 24576
    return client.pool(f"gpu/{name}", {CARD: capacity}).acquire(timeout=0, each=weight)


def test_a_card_that_is_held_is_given_to_nobody_under_the_new_name_of_its_host(host):
    old, new = host.called("old"), host.called("new")
    with take(old, count=2):
        refused(new)
        assert HostView(new).look().known[CARD].holders
    with take(new, ids=[CARD]) as leases:
        assert leases.names == (pool_name("gpu/old", CARD),)
        refused(old)
    assert HostView(new).host == "old"


def test_a_quarantine_lasts_under_the_new_name(host):
    old, new = host.called("old"), host.called("new")
    take(old).release()
    quarantine(old, HostView(old).host, CARD, "burns", ME)
    assert "burns" in refused(new)
    give_back(new, HostView(new).host, CARD, "", ME)
    take(new, ids=[CARD]).release()


def test_the_quarantine_of_a_card_that_nobody_has_asked_for_lasts_too(host):
    old, new = host.called("old"), host.called("new")
    assert HostView(old).quarantine(CARD, "burns", ME)[0] == "old"
    assert "burns" in refused(new)


def test_a_quarantine_follows_a_card_that_gets_another_home_at_that_moment(host, monkeypatch):
    old, new = host.called("old"), host.called("new")

    def moved_before(*given):
        host.boot("second")
        take(new, ids=[OTHER]).release()
        return quarantine(*given)

    monkeypatch.setattr("lockkit.gpu.quarantine.quarantine", moved_before)
    assert HostView(old).quarantine(CARD, "burns", ME)[0] == "new"
    assert "burns" in refused(new)


def test_recovery_finds_the_marks_of_a_host_that_was_renamed(host):
    old, new = host.called("old"), host.called("new")
    take(old).release()
    quarantine_faulty(old, "old", CARD, "Xid 79", ME, [CARD, OTHER])
    assert [one.outcome for one in recover(new, act=True, between=0.0).results] == ["cleared"]


def test_the_next_boot_gives_the_cards_the_name_of_that_time(host):
    old, new = host.called("old"), host.called("new")
    take(old).release()
    quarantine(old, "old", CARD, "burns", ME)
    host.boot("second")
    assert HostView(new).host == "new"
    assert "burns" in refused(new), "the mark goes with the card"
    with take(new) as leases:
        assert leases.names == (pool_name("gpu/new", OTHER),)
    assert not quarantined(new, "old")
    assert [(one.host, len(one.devices)) for one in fleet(new).hosts] == [("new", 2)]


def test_a_claim_of_the_boot_before_blocks_its_card_until_it_has_gone(host):
    old, new = host.called("old"), host.called("new")
    held = take(old, ids=[CARD])
    host.boot("second")
    assert "while this host was called old" in refused(new)
    assert HostView(new).look().known[CARD].holders
    assert {card.device.uuid: card.state for card in FleetView(new).look().cards}[CARD] == "held"
    take(new).release()  # the other one
    held.release()
    take(new, ids=[CARD]).release()
    take(new, ids=[CARD]).release()
    assert homes.homes(new, "new", host.snapshot().devices) == homes.Homes("new"), (
        "nothing is looked for any more"
    )


@pytest.mark.parametrize("version", ["this version", "older version"])
@pytest.mark.parametrize("waits", [False, True], ids=["next request", "request that waits"])
def test_a_mark_that_a_holder_makes_under_the_name_before_counts(host, version, waits):
    """A holder that finds its card faulty at its release knows only the name under which it took the card."""
    old, new = host.called("old"), host.called("new")
    held = of_old_version(old, "old") if version == "older version" else take(old, ids=[CARD])
    host.boot("second")
    refused(new)  # the card has its new home, and waits for the holder

    def ends(_=None):
        if held.valid():
            found = host.snapshot().devices
            take_out(old, "old", found, CARD, "row remap failed", ME, lambda _alert: None, lasting=True)
            held.release()

    if waits:
        with pytest.raises(AcquireTimeout, match="row remap failed"):
            take(new, ids=[CARD], timeout=5, on_wait=ends)
    else:
        ends()
    assert "row remap failed" in refused(new)
    give_back(new, "new", CARD, "", ME)
    take(new, ids=[CARD]).release()
    assert not quarantined(new, "old")


def test_claims_marks_and_sizes_of_an_older_version_under_another_name_count(host):
    old, new = host.called("old"), host.called("new")
    quarantine(old, "old", OTHER, "burns", ME)
    enlist(old, "old", [OTHER])
    held = of_old_version(old, "old")
    assert "while this host was called old" in refused(new)
    with pytest.raises(AcquireTimeout, match="burns"):
        take(new, ids=[OTHER])
    held.release()
    take(new, ids=[CARD]).release()


def test_the_size_that_a_person_gave_a_card_goes_with_it(host):
    old, new = host.called("old"), host.called("new")
    take(old).release()
    name = pool_name("gpu/old", CARD)
    record = old.record(name)
    old.put_record(name, {**record.value, "capacity": 1000}, record.version)
    host.boot("second")
    take(new).release()
    assert fixed_capacity(new.record(pool_name("gpu/new", CARD)).value) == 1000


def test_containers_with_names_of_their_own_come_to_one_name(host):
    one, other, both = host.called("b"), host.called("a"), host.called("c")
    host.shown = 1
    held = take(one)
    host.shown = 2
    with take(other) as leases:  # the card beside it has the same home
        assert leases.names == (pool_name("gpu/b", OTHER),)
        with pytest.raises(AcquireTimeout):
            take(both)
    held.release()


def test_a_card_whose_home_is_damaged_is_given_to_nobody_until_a_person_clears_it(host):
    client = host.called("old")
    take(client).release()
    record = client.record(pool_name("gpu-home", CARD))
    client.put_record(pool_name("gpu-home", CARD), {"host": 7}, record.version)
    assert "damaged" in refused(client)
    assert HostView(client).look().known[CARD].quarantine is not None
    give_back(client, "old", CARD, "", ME)
    take(client, ids=[CARD]).release()


def test_a_request_ends_when_its_cards_get_another_home(host):
    """Cards that it waits for are locked by another name from then on."""
    old, waiter, new = host.called("old"), host.called("old"), host.called("new")
    with contextlib.ExitStack() as held:
        held.enter_context(take(old, count=2))

        def moves(_waiting):
            host.boot("second")
            with contextlib.suppress(AcquireTimeout):
                take(new).release()
            held.close()

        with pytest.raises(BackendUnavailable, match="under the host name new"):
            take(waiter, count=2, timeout=60, on_wait=moves)


def test_a_card_that_a_program_names_is_refused_too(host):
    old, new = host.called("old"), host.called("new")
    with take(old, ids=[CARD]):
        host.boot("second")
        assert "while this host was called old" in NumberedCards(new).find("0", 5.0).refused()
    assert NumberedCards(new).find("0", 5.0).refused() is None


@pytest.mark.parametrize("boot", ["same boot", "other boot"])
@pytest.mark.parametrize("known", [False, True], ids=["first use", "used before"])
def test_no_moment_of_a_request_lets_two_names_hold_one_card(host, monkeypatch, boot, known):
    """At each request to the store of one client, another one takes the card under another name."""
    original = {call: getattr(Client, call) for call in ("record", "put_record", "inspect")}
    at, struck = 0, []
    while at == 0 or struck:
        host.store = f"memory://{os.urandom(8).hex()}"
        host.boot("first")
        a, b = host.called("b-name"), host.called("a-name")
        if known:
            take(a).release()
        seen, struck, got = [], [], []

        def counted(call, client=a, other=b, seen=seen, struck=struck, got=got, at=at):
            def made(self, *args, **how):
                if self is client:
                    seen.append(call)
                    if len(seen) == at + 1:
                        struck.append(call)
                        if boot == "other boot":
                            host.boot("second")
                        with contextlib.suppress(AcquireTimeout, BackendUnavailable):
                            got.append(take(other, ids=[CARD]))
                return original[call](self, *args, **how)

            return made

        with monkeypatch.context() as patch:
            for call in original:
                patch.setattr(Client, call, counted(call))
            with contextlib.suppress(AcquireTimeout, BackendUnavailable):
                got.append(take(a, ids=[CARD]))
        assert len(got) <= 1, (at, struck, [one.names for one in got])
        for one in got:
            one.release()
        at += 1
    assert at > 5
