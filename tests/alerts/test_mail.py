"""Mail over apprise to a real mail server: text and HTML, tried again, and delivered after a restart."""

from __future__ import annotations

import threading

import pytest

from lockkit.alerts.delivery import Delivery
from lockkit.alerts.outcomes import NotDelivered
from lockkit.alerts.pacing import Limits
from lockkit.alerts.sinks.through_apprise import Apprise
from lockkit.testing.processes import free_port
from support.notifications import notification
from support.receivers import Mails, mail_server

QUICK = Limits(first=0.01, longest=0.05)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    import apprise.plugins.email

    monkeypatch.setattr(apprise.plugins.email.NotifyEmail, "request_rate_per_sec", 0)


def url(address, more=""):
    return f"mailto://{address}?from=lockkit@example.com&to=ops@example.com{more}"


def test_a_mail_says_what_where_who_since_when_and_what_to_type():
    with mail_server() as server:
        Apprise(lambda: url(server.address))(
            notification(
                severity="P0",
                reason="escalated",
                step=2,
                times=12,
                link="https://locks.example/#/alerts?alert=f0",
            )
        )
        (mail,) = server.wait(1)
        envelope = server.mails[0][0]

    assert envelope.rcpt_tos == ["ops@example.com"]
    assert mail["Subject"] == "lockkit P0: gpu:0: 12 emergency releases of gpu:0 in an hour"
    page = mail.get_body(("html",)).get_content()
    for part in (
        "Nobody has acknowledged this, so it was raised to P0 (step 2).",
        "P0 gpu:0: 12 emergency releases of gpu:0 in an hour",
        "namespace prod, host node3",
        "ann@node3:4711",
        "2025-11-27 19:00:00 UTC (12 min, seen 12 times)",
        "<code>lockkit why gpu:0</code>",
        "<code>lockkit alerts ack f0</code>",
        '<a href="https://locks.example/#/alerts?alert=f0">',
    ):
        assert part in page
    text = mail.get_body(("plain",)).get_content()
    assert "lockkit why gpu:0" in text


def test_a_mail_can_be_plain_text():
    with mail_server() as server:
        Apprise(lambda: url(server.address), form="text")(notification())
        (mail,) = server.wait(1)

    assert mail.get_content_type() in ("text/plain", "multipart/mixed")
    assert "Next:   lockkit why gpu:0" in mail.get_body(("plain",)).get_content()


def test_a_name_with_a_script_is_text():
    with mail_server() as server:
        Apprise(lambda: url(server.address))(notification(text="<script>alert(1)</script>"))
        (mail,) = server.wait(1)

    page = mail.get_body(("html",)).get_content()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_mail_that_is_refused_is_a_failure():
    with mail_server() as server:
        server.refuse = "451 try again later"
        with pytest.raises(NotDelivered, match="apprise could not deliver it"):
            Apprise(lambda: url(server.address))(notification())


def test_mails_wait_for_a_server_that_is_down_and_come_in_order_after_a_restart(tmp_path):
    port, mails = free_port(), Mails()
    failed = threading.Event()

    class Sink(Apprise):
        def __call__(self, told):
            try:
                super().__call__(told)
            finally:
                failed.set()

    one = Delivery("mail", Sink(lambda: url(f"127.0.0.1:{port}")), tmp_path / "s", limits=QUICK)
    for number in range(3):
        one.put(notification(number))
    assert failed.wait(60.0)
    assert one.close(30.0) == 3

    with mail_server(mails, port):
        two = Delivery("mail", Sink(lambda: url(f"127.0.0.1:{port}")), tmp_path / "s", limits=QUICK)
        told = mails.wait(3)
        assert two.flush(30.0)
        two.close()

    assert [mail["Subject"].split(": ")[1] for mail in told] == [f"gpu:{number}" for number in range(3)]
