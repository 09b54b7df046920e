"""A real Alertmanager: what fires here fires there, and is over there as soon as it is here."""

from __future__ import annotations

import time

import pytest

from lockkit.alerts.channels import Channel
from lockkit.alerts.delivery import Delivery
from lockkit.alerts.opening import deliver_once
from lockkit.alerts.outbox import Outbox
from lockkit.alerts.outcomes import NotDelivered
from lockkit.alerts.pacing import Limits
from lockkit.alerts.sinks.alertmanager import LASTS, Alertmanager, alerts
from support.notifications import notification
from support.receivers import Answer, receiver
from support.servers.alertmanager import AlertmanagerServer
from support.servers.started import started

server = started(AlertmanagerServer)


def firing(server, lock):
    return [alert for alert in server.alerts() if alert["labels"].get("lock") == lock]


def told(lock, reason="first", since=None, **more):
    """A notification about an alert that began a minute ago, or has just ended."""
    now = time.time()
    labels = {"lock": lock, "host": "node3", "name-space": "prod"}
    one = notification(labels=labels, reason=reason, at=now, **more)
    member = one.members[0]._replace(
        since=now - 60.0 if since is None else since, resolved=now - 1.0 if reason == "all_resolved" else None
    )
    return one._replace(members=(member,))


def test_what_fires_is_seen_firing_and_then_resolved(server):
    sink = Alertmanager(lambda: server.url)
    first = told("gpu:a", severity="P1")
    sink(first)

    (alert,) = firing(server, "gpu:a")
    assert alert["status"]["state"] == "active"
    assert alert["labels"] == {
        "alertname": "emergency_rate",
        "fingerprint": "f0",
        "host": "node3",
        "job": "lockkit",
        "lock": "gpu:a",
        "name_space": "prod",
        "severity": "P1",
    }
    assert alert["annotations"]["command"] == "lockkit why gpu:0"

    # Raised to P0, it can be routed by that, and no longer fires as P1.
    sink(risen := began(told("gpu:a", "escalated", since=first.members[0].since, severity="P0"), "P1"))
    (raised,) = firing(server, "gpu:a")
    assert raised["labels"] == alert["labels"] | {"severity": "P0"}
    assert [one["labels"]["severity"] for one in alerts(risen, risen.at)] == ["P0", "P1"]

    sink(began(told("gpu:a", "all_resolved", since=first.members[0].since, severity="P0"), "P2"))
    assert firing(server, "gpu:a") == []


@pytest.mark.parametrize(
    "severity, first, sent",
    [
        ("P0", None, ["P0"]),
        ("P0", "P0", ["P0"]),
        ("P2", "P2", ["P2"]),
        ("P1", "P2", ["P1", "P2"]),
        ("P0", "P2", ["P0", "P1", "P2"]),
    ],
)
def test_what_has_risen_ends_with_each_severity_that_it_may_have_had(severity, first, sent):
    one = began(told("gpu:i", severity=severity), first)
    found = alerts(one, one.at)
    assert [each["labels"]["severity"] for each in found] == sent
    assert len({each["endsAt"] for each in found[1:]}) <= 1
    assert all(each["endsAt"] < found[0]["endsAt"] for each in found[1:])


def began(one, severity):
    """The notification, of an alert that began with a severity."""
    return one._replace(members=tuple(member._replace(began=severity) for member in one.members))


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 0.02, 0.5, 5.0, 7200.0])
@pytest.mark.parametrize("lasted", [0.01, 60.0])
def test_what_has_just_ended_is_over_there_whatever_the_clocks_say(server, ahead, lasted):
    # The clock of this host is ahead of Alertmanager's, or behind.
    lock = f"gpu:{ahead}:{lasted}"
    sink = Alertmanager(lambda: server.url)
    now = time.time() + ahead
    first = told(lock, since=now - lasted)._replace(at=now)
    sink(first)
    assert firing(server, lock)

    member = first.members[0]._replace(resolved=now)
    sink(first._replace(reason="all_resolved", members=(member,)))
    assert firing(server, lock) == []


def test_an_end_is_sent_again_only_if_it_may_be_in_the_future_there():
    at = 1_764_270_000.0  # the receiver's clock
    date = Answer(200, "{}", {"Date": "Thu, 27 Nov 2025 19:00:00 GMT"})
    over = notification(reason="all_resolved", at=at)
    with receiver(date) as to:
        for resolved in (at - 60.0, at + 60.0):
            member = over.members[0]._replace(since=resolved - 1.0, resolved=resolved)
            Alertmanager(lambda: to.url)(over._replace(at=resolved, members=(member,)))
        ends = [request.json[0]["endsAt"] for request in to.requests]
        starts = [request.json[0]["startsAt"] for request in to.requests]

    assert ends[:2] == ["2025-11-27T18:58:59.000Z", "2025-11-27T19:00:59.000Z"]
    assert ends[2] < "2025-11-27T19:00:00.000Z"
    assert all(start <= end for start, end in zip(starts, ends, strict=True))


def test_a_clock_that_goes_back_with_each_answer_leaves_the_end_to_be_told_again():
    late = notification(reason="all_resolved", at=1_764_270_000.0)
    years = (
        Answer(200, "{}", {"Date": f"Thu, 01 Jan {year} 00:00:00 GMT"}) for year in range(2020, 2000, -1)
    )
    with receiver() as to:
        to.planned.extend(years)
        with pytest.raises(NotDelivered, match="clock"):
            Alertmanager(lambda: to.url)(late)


def test_an_alert_outlives_alertmanagers_own_timeout(server):
    one = told("gpu:b")
    Alertmanager(lambda: f"{server.url}/api/v2/alerts")(one)

    (alert,) = firing(server, "gpu:b")
    assert alerts(one, one.at)[0]["endsAt"] == alert["endsAt"]
    assert LASTS == 24 * 3600.0


def test_a_delivery_waits_for_an_alertmanager_that_starts_again(tmp_path):
    with AlertmanagerServer() as server:
        limits = Limits(most=1000, first=0.01, longest=0.1)
        server.pause()
        sink = Alertmanager(lambda: server.url, timeout=0.2)
        patient = Alertmanager(lambda: server.url, timeout=30.0)
        one = Delivery("am", sink, tmp_path / "s", limits=limits)
        one.put(told("gpu:c"))
        assert not one.flush(0.3)
        one.close(5.0)
        server.resume()
        two = Delivery("am", patient, tmp_path / "s", limits=limits)
        assert two.flush(30.0)
        two.close()

        assert len(firing(server, "gpu:c")) == 1


def test_an_end_that_a_later_notification_overtakes_is_told_with_it(server):
    now = time.time()
    first = told("gpu:f", since=now - 60.0)
    a = first.members[0]
    b, c = (a._replace(fingerprint=lock, labels={"lock": lock}) for lock in ("gpu:g", "gpu:h"))
    many = [
        first,
        first._replace(reason="new_member", members=(b, a._replace(resolved=now - 30.0))),
        first._replace(reason="new_member", members=(c, b._replace(resolved=now - 20.0))),
        first._replace(reason="all_resolved", members=(c._replace(resolved=now - 10.0),)),
    ]
    box = Outbox("am", None, Limits(most=4, window=0.05), keeps_state=True)
    sink = Alertmanager(lambda: server.url)
    box.add(many[0])
    batch = box.next()
    sink(batch.notification)
    box.settle(batch, None)
    for one in many[1:]:
        box.add(one)
    batch = box.next()
    sink(batch.notification)
    box.settle(batch, None)

    assert (len(box), box.counts.superseded) == (0, 2)
    assert [firing(server, lock) for lock in ("gpu:f", "gpu:g", "gpu:h")] == [[], [], []]


def test_one_delivery_for_a_test_goes_to_the_channel_of_the_configuration(server):
    channel = Channel("am", "alertmanager", url="env:AM")

    assert deliver_once(channel, told("gpu:d"), {"AM": server.url})[:3] == ("am", True, "")
    assert len(firing(server, "gpu:d")) == 1
    assert deliver_once(channel, told("gpu:d"), {}).error.startswith("the variable AM is not set")


def test_a_bearer_token_goes_with_it_and_is_not_told():
    with receiver(Answer(401)) as to, pytest.raises(NotDelivered, match="answered 401"):
        Alertmanager(lambda: f"{to.url}/prefix/", lambda: "tok3n")(told("gpu:e"))

    assert to.requests[0].headers["Authorization"] == "Bearer tok3n"
    assert to.requests[0].path == "/prefix/api/v2/alerts"
