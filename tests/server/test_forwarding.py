"""Proxies: the record has the real peer, and what a trusted proxy says of it beside that."""

from __future__ import annotations

import json

import pytest

import lockkit
from lockkit.server import make_app
from lockkit.server.forwarding import Proxies, Sender

from .conftest import TOKENS, Site
from .test_acts import records


def seen(proxies, peer, *pairs, scheme="http"):
    """The sender of a request from a peer with these headers."""
    headers = [(name.encode(), value.encode()) for name, value in pairs]
    client = None if peer is None else (peer, 1234)
    return Proxies(proxies).sender({"type": "http", "client": client, "scheme": scheme, "headers": headers})


FOR, PROTO = "x-forwarded-for", "x-forwarded-proto"


@pytest.mark.parametrize(
    "proxies, peer, pairs, expected",
    [
        ([], "127.0.0.1", [(FOR, "1.2.3.4"), (PROTO, "https")], ("127.0.0.1", "", False)),
        (["10.0.0.7"], "10.0.0.8", [(FOR, "1.2.3.4"), (PROTO, "https")], ("10.0.0.8", "", False)),
        (["10.0.0.7"], "10.0.0.7", [(FOR, "1.2.3.4"), (PROTO, "https")], ("10.0.0.7", "1.2.3.4", True)),
        (["10.0.0.0/24"], "10.0.0.7", [(FOR, "6.6.6.6, 1.2.3.4")], ("10.0.0.7", "1.2.3.4", False)),
        (["10.0.0.0/24"], "10.0.0.7", [(FOR, "6.6.6.6"), (FOR, "1.2.3.4")], ("10.0.0.7", "1.2.3.4", False)),
        (["10.0.0.0/24"], "10.0.0.7", [(FOR, "1.2.3.4, 10.0.0.9")], ("10.0.0.7", "1.2.3.4", False)),
        (["10.0.0.0/24"], "10.0.0.7", [(FOR, "10.0.0.1, 10.0.0.9")], ("10.0.0.7", "10.0.0.1", False)),
        (["10.0.0.7"], "10.0.0.7", [(FOR, "<script>")], ("10.0.0.7", "", False)),
        (["10.0.0.7"], "10.0.0.7", [(FOR, "1.2.3.4:99")], ("10.0.0.7", "1.2.3.4", False)),
        (["10.0.0.7"], "10.0.0.7", [(FOR, "[2001:db8::1]:99")], ("10.0.0.7", "2001:db8::1", False)),
        (["10.0.0.7"], "10.0.0.7", [(PROTO, "https, http")], ("10.0.0.7", "", False)),
        (["10.0.0.7"], "10.0.0.7", [], ("10.0.0.7", "", False)),
        (["10.0.0.7"], "::ffff:10.0.0.7", [(FOR, "1.2.3.4")], ("::ffff:10.0.0.7", "1.2.3.4", False)),
        (["10.0.0.7"], None, [(FOR, "1.2.3.4")], ("", "", False)),
        (["0.0.0.0/0"], "not an address", [(FOR, "1.2.3.4")], ("not an address", "", False)),
    ],
)
def test_only_a_proxy_that_is_named_is_believed(proxies, peer, pairs, expected):
    assert seen(proxies, peer, *pairs) == Sender(*expected)


def test_a_server_with_tls_is_secure_unless_its_proxy_says_otherwise():
    assert seen([], "1.2.3.4", scheme="https").secure
    assert not seen(["1.2.3.4"], "1.2.3.4", (PROTO, "http"), scheme="https").secure


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.300", "10.0.0.1/8", "*", ""])
def test_what_is_no_address_is_an_error_that_says_what_is_meant(client, text):
    with pytest.raises(lockkit.ConfigError, match=r"serve\.proxies"):
        make_app([client], proxies=[text])


FORGED = {"x_forwarded_for": "6.6.6.6", "x_forwarded_proto": "https"}
BODY = {"name": "x", "claim_id": "0" * 12, "reason": "hung"}


def test_a_header_that_anybody_can_send_is_neither_recorded_nor_believed(client, serving, token_file):
    application = make_app([client], token_file=str(token_file), hosts=["locks.example"])
    site = Site(client, application, serving(application, proxy_headers=False))

    site.post("/api/evict", BODY, **FORGED)
    cookie = site.post("/api/session", {"token": TOKENS["view"]}, token=None, **FORGED).headers["set-cookie"]

    (record,) = records(client)
    assert record["from"] == "127.0.0.1"
    assert "forwarded_for" not in record
    assert "Secure" not in cookie


def test_what_a_trusted_proxy_says_stands_beside_its_own_address(client, serving, token_file):
    application = make_app([client], token_file=str(token_file), proxies=["127.0.0.0/8"])
    site = Site(client, application, serving(application, proxy_headers=False))

    site.post("/api/evict", BODY, **FORGED)
    cookie = site.post("/api/session", {"token": TOKENS["view"]}, token=None, **FORGED).headers["set-cookie"]

    (record,) = records(client)
    assert (record["from"], record["forwarded_for"]) == ("127.0.0.1", "6.6.6.6")
    assert "Secure" in cookie


@pytest.mark.parametrize("proxies, expected", [([], None), (["127.0.0.1"], "6.6.6.6")])
def test_the_command_believes_whom_the_configuration_names(begun, tmp_path, token_file, proxies, expected):
    (tmp_path / "lockkit.toml").write_text(
        f"[serve]\nhosts = ['locks.example']\nproxies = {json.dumps(proxies)}\ntoken_file = '{token_file}'\n"
    )
    _, line = begun(
        "--json",
        LOCKKIT_CONFIG=str(tmp_path / "lockkit.toml"),
        LOCKKIT_URL=f"sqlite:{tmp_path}/locks.db",
        FORWARDED_ALLOW_IPS="*",
    )
    port = int(json.loads(line)["url"].rpartition(":")[2].strip("/"))
    with lockkit.connect(f"sqlite:{tmp_path}/locks.db", state_dir=str(tmp_path / "state")) as client:
        Site(client, None, port).post("/api/evict", BODY, **FORGED)
        (record,) = records(client)

    assert (record["from"], record.get("forwarded_for")) == ("127.0.0.1", expected)
