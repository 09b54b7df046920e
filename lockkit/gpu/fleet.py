"""The cards of all hosts in the store's lists (:mod:`lockkit.gpu.enlisting`); no remote driver is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError
from lockkit.facts import NOTHING
from lockkit.gpu.devices import Device
from lockkit.gpu.enlisting import about, listed_cards, listed_hosts
from lockkit.gpu.homes import home_of
from lockkit.gpu.host_pools import ROOT, host_of, host_pool, is_simulated
from lockkit.gpu.known import Known, queue, with_cards_around
from lockkit.gpu.marks import ALL, record_name
from lockkit.gpu.quarantine import mark_of, mark_of_damage, quarantined
from lockkit.gpu.receipts import in_record
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.notes.members import in_pool, pool_name
from lockkit.notes.records import fixed_capacity
from lockkit.values.names import check_name
from lockkit.values.sizes import MIB
from lockkit.views.looking import requests_waiting

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = ["Fleet", "HostSeen", "fleet"]


class HostSeen(NamedTuple):
    """The cards of a host, as the store knows them.

    Attributes:
        host: The name of the host.
        devices: The cards, without what only a driver knows: memory is the capacity, and an index may be -1.
        known: The facts that the store has about them, by UUID.
        waiting: The number of requests for them that wait.
    """

    host: str
    devices: tuple[Device, ...]
    known: Mapping[str, Known]
    waiting: int = 0


class Fleet(NamedTuple):
    """The cards of all hosts.

    Attributes:
        hosts: The hosts, by name.
        remarks: What was left out, a sentence each.
    """

    hosts: tuple[HostSeen, ...]
    remarks: tuple[str, ...] = ()


def fleet(client: Client, besides: Callable[[str], bool] = lambda _: False, *, root: str = ROOT) -> Fleet:
    """The cards of all hosts of the store, by name: recorded ones, and those that are held or waited for.

    Three requests for each card, three for each host, and two for all. Names in the records that no lock can
    have are left out, with a remark: any user of the store may have written them.

    Args:
        client: The client.
        besides: Returns whether a host is left out.
        root: The name under which the pools of the hosts lie: that of real cards, or that of simulated ones.

    Raises:
        BackendError: The store does not answer.
    """
    in_use: dict[str, set[str]] = {}
    for name in client.names(pool_name(f"{root}/")):
        pool, member = in_pool(name) or ("", None)
        of_host = in_use.setdefault(host_of(pool), set())
        if member is not None:
            of_host.add(member)
    hosts = {*in_use, *listed_hosts(client, root)}
    found: list[HostSeen] = []
    left_out = [host for host in sorted(hosts) if not (host and _lockable(record_name(host)))]
    remarks = [_left_out(len(left_out), "host", f"the record of {pool_name(root)!r}")]
    for host in sorted(hosts - {*left_out}):
        if not besides(host):
            seen, strange = _host(client, host, in_use.get(host, ()))
            if seen.devices or seen.waiting:
                found.append(seen)
            remarks.append(_left_out(strange, "card", f"a record of the host {host}"))
    return Fleet(tuple(found), tuple(filter(None, remarks)))


def _lockable(name: str) -> bool:
    """Whether a lock can have this name."""
    try:
        check_name(name)
    except ConfigError:
        return False
    return True


def _left_out(count: int, what: str, where: str) -> str:
    """A remark about names that were left out; "" if none were."""
    if not count:
        return ""
    return printable(
        f"{count} {what}{'s' if count > 1 else ''} left out: {where} has names that no lock can have"
    )


def _host(client: Client, host: str, in_use: Iterable[str]) -> tuple[HostSeen, int]:
    """A host, and how many of its cards were left out."""
    listed = listed_cards(client, host)
    marks = quarantined(client, host)
    known: dict[str, Known] = {}
    devices: list[Device] = []
    used = {*in_use, *(marks.keys() - {ALL})}
    uuids = dict.fromkeys((*listed, *sorted(used)))
    lockable = [uuid for uuid in uuids if uuid and _lockable(pool_name(host_pool(host), uuid))]
    for uuid in lockable:
        name = pool_name(host_pool(host), uuid)
        of_card = client.record(name)
        value = of_card.value if of_card else NOTHING
        index, model, parent = about(value)
        if (
            uuid not in used
            and not is_simulated(host)
            and home_of(client, parent or uuid) not in (None, host)
        ):
            continue  # the list of a host keeps the cards that have another home by now
        capacity = fixed_capacity(value)
        memory = None if capacity is None else capacity * MIB
        device = Device(uuid, index, model, memory, parent=parent)
        devices.append(device)
        info = client.inspect(name)
        mark = mark_of(marks, device) or mark_of_damage(uuid, of_card)
        known[uuid] = Known(info.holders, in_record(uuid, of_card), mark, waiters=info.waiters)
    ordered = sorted(devices, key=lambda one: (one.index < 0, one.index, one.parent is not None, one.uuid))
    waiting = requests_waiting(queue(client, host), (card.waiters for card in known.values()))
    around = with_cards_around(known, devices)
    return HostSeen(host, tuple(ordered), around, waiting), len(uuids) - len(lockable)
