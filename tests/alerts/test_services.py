"""PagerDuty, DingTalk and Slack: documented forms of bodies at a real HTTP receiver; answers understood."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
from base64 import b64encode
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import apprise.plugins.dingtalk
import apprise.plugins.slack
import jsonschema
import pytest

from lockkit.alerts.delivery import Delivery
from lockkit.alerts.outcomes import NotDelivered
from lockkit.alerts.pacing import Limits
from lockkit.alerts.sinks import dingtalk
from lockkit.alerts.sinks.alertmanager import Alertmanager
from lockkit.alerts.sinks.dingtalk import DingTalk
from lockkit.alerts.sinks.pagerduty import PagerDuty, event
from lockkit.alerts.sinks.posting import post
from lockkit.alerts.sinks.through_apprise import Apprise
from support.notifications import notification
from support.receivers import Answer, receiver
from support.servers.certificates import Certificates

KEY = "0123456789abcdef0123456789abcdef"
ACCEPTED = Answer(202, '{"status": "success", "message": "Event processed", "dedup_key": "x"}')
OK = Answer(200, '{"errcode": 0, "errmsg": "ok"}')

# https://developer.pagerduty.com/docs/send-alert-event
EVENT = {
    "type": "object",
    "required": ["routing_key", "event_action", "dedup_key"],
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "maxLength": 255},
        "client": {"type": "string"},
        "payload": {
            "type": "object",
            "required": ["summary", "source", "severity"],
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
                "source": {"type": "string", "minLength": 1},
                "severity": {"enum": ["critical", "error", "warning", "info"]},
                "timestamp": {
                    "type": "string",
                    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)$",
                },
                "component": {"type": "string"},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
}
# https://open.dingtalk.com/document/robots/custom-robot-access
MARKDOWN = {
    "type": "object",
    "required": ["msgtype", "markdown"],
    "properties": {
        "msgtype": {"const": "markdown"},
        "markdown": {
            "type": "object",
            "required": ["title", "text"],
            "properties": {
                "title": {"type": "string", "minLength": 1},
                "text": {"type": "string", "minLength": 1},
            },
            "additionalProperties": False,
        },
        "at": {
            "type": "object",
            "properties": {
                "atMobiles": {"type": "array", "items": {"type": "string"}},
                "atUserIds": {"type": "array", "items": {"type": "string"}},
                "isAtAll": {"type": "boolean"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
# https://api.slack.com/messaging/webhooks, https://api.slack.com/reference/messaging/attachments
WEBHOOK = {
    "type": "object",
    "anyOf": [{"required": ["text"]}, {"required": ["attachments"]}, {"required": ["blocks"]}],
    "properties": {
        "text": {"type": "string"},
        "username": {"type": "string"},
        "channel": {"type": "string"},
        "icon_url": {"type": "string"},
        "mrkdwn": {"type": "boolean"},
        "attachments": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "text": {"type": "string"},
                    "color": {"type": "string", "pattern": "^(good|warning|danger|#[0-9A-Fa-f]{6})$"},
                    "footer": {"type": "string", "maxLength": 300},
                    "footer_icon": {"type": "string"},
                    "ts": {"type": "number"},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}


def pagerduty(to, **more):
    return PagerDuty(lambda: KEY, f"{to.url}/v2/enqueue", **more)


def robot(to, sign=None, **more):
    return DingTalk(lambda: "tok3n", sign, f"{to.url}/robot/send", **more)


LINK = "https://locks.example/#/alerts?store=redis-1f2e3d4c&alert=f0"


@pytest.mark.parametrize(
    "sink",
    [
        pagerduty,
        robot,
        lambda to: Alertmanager(lambda: to.url, timeout=30.0),
        lambda to: Apprise(lambda: f"json://{to.address}/hook", timeout=30.0),
    ],
    ids=["pagerduty", "dingtalk", "alertmanager", "webhook"],
)
def test_each_service_gets_the_link_the_fingerprint_and_the_command_that_acknowledges(sink):
    with receiver(Answer(202 if sink is pagerduty else 200, '{"errcode": 0}')) as to:
        sink(to)(notification(link=LINK))
        told = json.dumps(to.requests[0].json)

    assert LINK in told
    assert "lockkit alerts ack f0" in told
    assert "f0" in told.replace(LINK, "").replace("ack f0", "")


# -- PagerDuty


def test_pagerduty_gets_an_incident_for_each_group_and_its_end():
    with receiver(ACCEPTED) as to:
        sink = pagerduty(to)
        sink(notification(severity="P0", command="lockkit why gpu:0"))
        sink(notification(reason="repeat", severity="P1"))
        sink(notification(reason="all_resolved", severity="P0"))
        first, again, over = [request.json for request in to.requests]

    for body in (first, again, over):
        jsonschema.validate(body, EVENT)
    assert {body["dedup_key"] for body in (first, again, over)} == {"emergency_rate 0"}
    assert [body["event_action"] for body in (first, again, over)] == ["trigger", "trigger", "resolve"]
    assert first["payload"]["severity"] == "critical"
    assert again["payload"]["severity"] == "error"
    assert first["payload"]["source"] == "node3"
    assert first["payload"]["timestamp"] == "2025-11-27T19:00:00Z", "since when it is so"
    assert first["payload"]["summary"].startswith("lockkit P0: gpu:0: 12 emergency releases")
    assert "Next:   lockkit why gpu:0" in first["payload"]["custom_details"]["text"]
    assert to.requests[0].path == "/v2/enqueue"
    assert to.requests[0].headers["Content-Type"] == "application/json"


def test_a_long_group_and_a_long_text_stay_within_pagerdutys_limits():
    told = notification(text="x" * 5000, group="g" * 1000)
    other = notification(group="g" * 999 + "h")

    jsonschema.validate(event(told, KEY), EVENT)
    assert event(told, KEY)["dedup_key"] != event(other, KEY)["dedup_key"]


@pytest.mark.parametrize(
    "answer, rejected, wish",
    [
        (Answer(400, '{"status": "invalid event"}'), True, None),
        (Answer(403), False, None),
        (Answer(429, "", {"Retry-After": "7"}), False, 7.0),
        (Answer(500), False, None),
        (Answer(302, "", {"Location": "http://127.0.0.1:1/"}), False, None),
    ],
)
def test_an_answer_that_is_not_202_is_a_failure_of_its_kind(answer, rejected, wish):
    with receiver(answer) as to, pytest.raises(NotDelivered) as raised:
        pagerduty(to)(notification())

    assert (raised.value.rejected, raised.value.retry_after) == (rejected, wish)
    assert f"answered {answer.code}" in str(raised.value)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("service", ["pagerduty", "dingtalk", "alertmanager", "webhook"])
def test_a_redirect_is_not_followed_and_is_a_failure(code, service):
    with receiver(Answer(200, '{"errcode": 0}')) as other, receiver() as to:
        to.usual = Answer(code, "", {"Location": f"{other.url}/login?back=s3cretplace"})
        sink = {
            "pagerduty": lambda: pagerduty(to),
            "dingtalk": lambda: robot(to),
            "alertmanager": lambda: Alertmanager(lambda: to.url, lambda: "tok3n"),
            "webhook": lambda: Apprise(
                lambda: f"json://ann:passw0rd@{to.address}/?+X-Token=headers3cret&redirect=yes"
            ),
        }[service]()
        with pytest.raises(NotDelivered, match="redirect") as raised:
            sink(notification())

        assert (len(to.requests), other.requests) == (1, [])
        assert "s3cretplace" not in str(raised.value)
        if service != "webhook":
            assert "http://127.0.0.1" in str(raised.value)


@pytest.mark.parametrize("location", ["", "//[", "/elsewhere", "http://[::1"])
def test_a_redirect_that_leads_nowhere_is_a_failure_too(location):
    with (
        receiver(Answer(308, "", {"Location": location})) as to,
        pytest.raises(NotDelivered, match="redirect"),
    ):
        pagerduty(to)(notification())


def test_a_retry_after_may_be_a_date():
    answer = Answer(503, "", {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"})
    with receiver(answer) as to, pytest.raises(NotDelivered) as raised:
        post(to.url, {}, timeout=30.0)

    assert raised.value.retry_after == 0.0


def test_a_service_that_does_not_answer_may_have_taken_it():
    with receiver(Answer(0)) as to, pytest.raises(TimeoutError):
        pagerduty(to, timeout=0.5)(notification())


@pytest.mark.parametrize("secure", [False, True])
def test_an_answer_in_drops_is_left_after_the_timeout(tmp_path, secure):
    """Each drop comes in time, and the whole would take for ever."""
    certificates = Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    over = threading.Event()

    def drip(listener):
        with suppress(OSError):
            connection, _ = listener.accept()
            connection = context.wrap_socket(connection, server_side=True) if secure else connection
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100000\r\n\r\n")
                while not over.wait(0.05):
                    connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        url = f"{'https' if secure else 'http'}://127.0.0.1:{listener.getsockname()[1]}/"
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match="in full within 1 s"):
            post(url, {}, timeout=1.0, ca_file=str(certificates.ca) if secure else "")
        assert time.monotonic() - begun < 30.0
        over.set()
        thread.join(30.0)


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch.setenv


def test_the_proxy_of_the_environment_is_used_with_its_login(proxies):
    with receiver() as proxy:
        proxies("http_proxy", f"http://me:p%40ss@{proxy.address}")
        proxies("no_proxy", "localhost,.example")
        post("http://ann:secret@pager.invalid:81/v2?a=b", {}, timeout=10.0)

    (request,) = proxy.requests
    assert request.path == "http://pager.invalid:81/v2?a=b"
    assert request.headers["Proxy-Authorization"] == f"Basic {b64encode(b'me:p@ss').decode()}"
    assert request.headers["Authorization"] == f"Basic {b64encode(b'ann:secret').decode()}"


def test_a_host_of_no_proxy_is_reached_directly(proxies):
    with receiver() as service:
        proxies("all_proxy", "http://127.0.0.1:1")
        proxies("no_proxy", "127.0.0.1")
        post(service.url, {}, timeout=10.0)
    assert len(service.requests) == 1


def test_https_goes_through_a_tunnel_of_the_proxy(proxies):
    with receiver(Answer(407)) as proxy:
        proxies("https_proxy", proxy.url)
        with pytest.raises(
            NotDelivered, match=r"cannot connect to pager\.invalid by the proxy 127\.0\.0\.1: "
        ):
            post("https://pager.invalid/v2?key=secret", {}, timeout=10.0)


@pytest.mark.parametrize("url", ["socks5://localhost:1", "http://", "http://localhost:port"])
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(proxies, url):
    proxies("http_proxy", url)
    with pytest.raises(NotDelivered, match="http_proxy or all_proxy must be http://HOST:PORT"):
        post("http://pager.invalid/", {}, timeout=10.0)


def test_a_port_without_a_server_has_certainly_not_taken_it():
    with receiver() as to:
        pass
    with pytest.raises(NotDelivered, match=r"cannot connect to 127\.0\.0\.1"):
        pagerduty(to)(notification())


def test_the_certificate_of_the_service_is_checked(tmp_path):
    certificates = Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    with receiver(ACCEPTED, context) as to:
        with pytest.raises(NotDelivered, match="cannot connect"):
            pagerduty(to)(notification())
        pagerduty(to, ca_file=str(certificates.ca))(notification())
        assert len(to.requests) == 1


def test_a_service_that_fails_in_each_way_gets_all_across_a_restart(tmp_path):
    ways = [Answer(500), Answer(429, "", {"Retry-After": "0"}), Answer(0), Answer(503)]
    limits = Limits(most=1000, first=0.01, longest=0.05)
    with receiver(ACCEPTED) as to:
        to.planned.extend(ways * 2)
        one = Delivery("pager", pagerduty(to, timeout=1.0), tmp_path / "s", limits=limits)
        for number in range(3):
            one.put(notification(number))
        to.wait(3)
        one.close()
        two = Delivery("pager", pagerduty(to, timeout=1.0), tmp_path / "s", limits=limits)
        assert two.flush(60.0)
        two.close()
        keys = [request.json["dedup_key"] for request in to.requests]

    assert {*keys} == {f"emergency_rate {number}" for number in range(3)}
    assert len(keys) >= 3 + len(ways)


# -- DingTalk


def test_dingtalk_gets_markdown_in_its_form():
    with receiver(OK) as to:
        robot(to)(notification(severity="P0"))
        request = to.requests[0]

    jsonschema.validate(request.json, MARKDOWN)
    assert urlsplit(request.path).path == "/robot/send"
    assert parse_qs(urlsplit(request.path).query) == {"access_token": ["tok3n"]}
    text = request.json["markdown"]["text"]
    assert text.startswith("### lockkit P0: gpu:0: 12 emergency")
    assert "- Next: `lockkit why gpu:0`" in text


def test_a_message_to_dingtalk_is_signed():
    with receiver(OK) as to:
        robot(to, lambda: "SECabc", wall=lambda: 1_600_000_000.0)(notification())
        query = parse_qs(urlsplit(to.requests[0].path).query)

    assert query["timestamp"] == ["1600000000000"]
    # printf '1600000000000\nSECabc' | openssl dgst -sha256 -hmac SECabc -binary | base64
    assert (
        query["sign"]
        == [dingtalk.signature("SECabc", 1_600_000_000_000)]
        == ["ABcUcMOwyGGKmiNbHqEbhvKpuIGkMXqT1gAGfAAmnk8="]
    )


@pytest.mark.parametrize(
    "body, match",
    [
        ('{"errcode": 310000, "errmsg": "keywords not in content"}', "310000 keywords"),
        ('{"errcode": 130101, "errmsg": "send too fast"}', "130101"),
        ("<html>", "is the address right"),
        ("[]", "is the address right"),
    ],
)
def test_dingtalk_refuses_with_200_and_that_is_noticed(body, match):
    with receiver(Answer(200, body)) as to, pytest.raises(NotDelivered, match=match):
        robot(to)(notification())


def test_dingtalk_is_left_alone_when_it_says_too_fast():
    with (
        receiver(Answer(200, '{"errcode": 130101, "errmsg": "send too fast"}')) as to,
        pytest.raises(NotDelivered) as raised,
    ):
        robot(to)(notification())
    assert raised.value.retry_after == 60.0


def test_a_long_message_to_dingtalk_is_cut():
    members = tuple(notification(number, text="語" * 600).members[0] for number in range(40))
    body = dingtalk.message(notification()._replace(members=members))

    assert len(json.dumps(body, ensure_ascii=False).encode()) < 20_000


# -- through apprise


@pytest.fixture
def at_home(monkeypatch):
    """Send what is for Slack and DingTalk to a receiver, and do not wait between messages."""

    def go(to):
        monkeypatch.setattr(apprise.plugins.slack.NotifySlack, "webhook_url", f"{to.url}/services")
        monkeypatch.setattr(
            apprise.plugins.dingtalk.NotifyDingTalk,
            "notify_url",
            f"{to.url}/robot/send?access_token={{token}}",
        )
        for plugin in (apprise.plugins.slack.NotifySlack, apprise.plugins.dingtalk.NotifyDingTalk):
            monkeypatch.setattr(plugin, "request_rate_per_sec", 0)

    return go


SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"


def test_slack_gets_its_form(at_home):
    with receiver(Answer(200, "ok")) as to:
        at_home(to)
        Apprise(lambda: SLACK)(notification(severity="P0", labels={"lock": "gpu:0", "owner": "ann"}))
        request = to.requests[0]

    jsonschema.validate(request.json, WEBHOOK)
    assert request.path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    told = request.json["attachments"][0]
    assert told["title"] == "lockkit P0: gpu:0: 12 emergency releases of gpu:0 in an hour"
    assert "- Who: ann" in told["text"]
    assert "- Next: `lockkit why gpu:0`" in told["text"]


def test_a_lock_called_like_a_mention_rings_nobody(at_home):
    with receiver(Answer(200, "ok")) as to:
        at_home(to)
        Apprise(lambda: SLACK)(
            notification(
                labels={"lock": "<!channel>", "owner": "<@U123>"}, text="<!here> is <https://evil|good>"
            )
        )
        body = to.requests[0].body.decode()

    told = json.loads(body)["attachments"][0]
    assert "<" not in told["text"] + told["title"]


def test_dingtalk_over_apprise_gets_markdown(at_home):
    with receiver(OK) as to:
        at_home(to)
        Apprise(lambda: "dingtalk://abcdefabcdefabcdef/")(notification())

    jsonschema.validate(to.requests[0].json, MARKDOWN)


def test_what_slack_refuses_is_a_failure_without_secrets(at_home, caplog):
    caplog.set_level(logging.DEBUG)
    with receiver(Answer(500, "no")) as to:
        at_home(to)
        sink = Apprise(lambda: SLACK)
        with pytest.raises(NotDelivered, match="error=500") as raised:
            sink(notification())

    assert not raised.value.rejected
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in str(raised.value) + caplog.text
    assert "Slack" in caplog.text


@pytest.mark.parametrize("code", [400, 413, 422])
def test_what_a_webhook_objects_to_is_known_to_be_refused(code):
    with receiver(Answer(code)) as to, pytest.raises(NotDelivered) as raised:
        Apprise(lambda: f"json://{to.address}/hook")(notification())

    assert raised.value.rejected


def test_a_webhook_gets_the_text():
    with receiver() as to:
        Apprise(lambda: f"json://{to.address}/hook")(notification())
        body = to.requests[0].json

    assert body["title"] == "lockkit P1: gpu:0: 12 emergency releases of gpu:0 in an hour"
    assert "Next:   lockkit why gpu:0" in body["message"]


def test_a_service_that_hangs_is_left_after_the_timeout():
    with receiver(Answer(0)) as to, pytest.raises(NotDelivered):
        Apprise(lambda: f"json://{to.address}/hook", timeout=0.1)(notification())


def test_a_url_that_apprise_does_not_know_is_told_without_its_secrets():
    with pytest.raises(NotDelivered, match="does not understand") as raised:
        Apprise(lambda: "slakc://tops3cret/x")(notification())
    assert "tops3cret" not in str(raised.value)


def test_apprise_works_on_the_thread_of_the_channel_alone():
    # All channels would share a thread of its own pool, and the interpreter would wait for it at exit.
    with receiver() as to:
        before = set(threading.enumerate())
        Apprise(lambda: f"json://{to.address}/hook")(notification())
        after = {thread for thread in threading.enumerate() if "ThreadPool" in thread.name}

    assert after <= before
