"""Rights: what the bearer of a token may do, and from where."""

from __future__ import annotations

import os
import socket
import sys

import pytest

import lockkit
from lockkit.errors import ConfigError
from lockkit.server import make_app
from lockkit.server.endpoints import ENDPOINTS
from lockkit.server.tokens import TokenFile

from .conftest import TOKENS

OPEN = ("/livez", "/readyz", "/openapi.json")
PLACES = [
    (one.method, one.path.replace("{uuid}", "GPU-0").replace("{fingerprint}", "5f2c9a01b7de"))
    for one in ENDPOINTS
]
GUARDED = [
    (method, path) for (method, path), one in zip(PLACES, ENDPOINTS, strict=True) if one.scope is not None
]


@pytest.mark.parametrize("path", OPEN)
def test_a_probe_needs_no_token(site, path):
    assert site.get(path, token=None).status == 200


@pytest.mark.parametrize("method, path", GUARDED)
@pytest.mark.parametrize("token", [None, "x" * 40, "", "é" * 40])
def test_without_a_known_token_nothing_is_shown_or_done(site, method, path, token):
    header = {"authorization": f"Bearer {token}".encode()} if token is not None else {}

    answer = site.send(method, path, {} if method == "POST" else None, token=None, **header)

    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("method, path", [(m, p) for (m, p) in GUARDED if m == "POST"])
def test_who_may_look_may_not_act(site, method, path):
    answer = site.send(method, path, {}, token="view")

    assert (answer.status, answer.json["error"]) == (403, "scope")


@pytest.mark.parametrize("method, path", [place for place in PLACES if place[0] == "POST"])
def test_without_tokens_nobody_may_act(open_site, method, path):
    answer = open_site.send(method, path, {}, token=None)

    assert (answer.status, answer.json["error"]) == (403, "view_only")
    assert "LOCKKIT_SERVE_TOKEN_FILE" in answer.json["hint"]


def test_without_tokens_everybody_on_this_host_may_look(open_site):
    assert open_site.get("/api/locks", token=None).status == 200


@pytest.mark.parametrize("path", [path for method, path in PLACES if method == "POST"])
def test_nothing_is_changed_by_get(site, path):
    answer = site.get(path)

    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "x" * 300]
)
def test_a_strange_host_name_is_refused(site, host):
    assert site.get("/api/locks", host=host).status == 421


def test_the_host_of_the_public_address_is_known(serving):
    from .conftest import Site

    with lockkit.connect("memory:", serve_public_url="https://Locks.example:8443/x/") as client:
        application = make_app([client])
        site = Site(client, application, serving(application))
        assert site.get("/livez", host="locks.example:8443", token=None).status == 200
        assert site.get("/livez", host="others.example", token=None).status == 421


@pytest.mark.parametrize(
    "url", ["locks.example", "ftp://h/", "https://", "https://u:p@h/", "https://h/?a=b", "https://h/#/locks"]
)
def test_a_public_address_is_one_of_http(url):
    with pytest.raises(ConfigError, match=r"serve\.public_url must be https://"):
        lockkit.connect("memory:", serve_public_url=url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8712", "10.0.0.7", "LOCALHOST:80"])
def test_names_of_this_host_and_addresses_are_known(site, host):
    assert site.get("/livez", host=host).status == 200


def test_a_name_may_be_configured(client, serving, token_file):
    from .conftest import Site

    application = make_app([client], token_file=str(token_file), hosts=["locks.example"])
    site = Site(client, application, serving(application))

    assert site.get("/livez", host="Locks.example.").status == 200
    assert site.get("/livez", host="others.example").status == 421


SITES = [
    ({"origin": "http://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "http://127.0.0.1:1"}, 403),
    ({"origin": "http://[", "sec_fetch_site": "same-origin"}, 403),
    ({"sec_fetch_site": "cross-site"}, 403),
    ({"sec_fetch_site": "same-site"}, 403),
    ({"sec_fetch_site": "same-origin"}, 409),
    ({}, 409),
]


@pytest.mark.parametrize("headers, status", SITES)
def test_a_write_from_another_site_is_refused(site, client, headers, status):
    with client.lock("x").acquire():
        body = {"name": "x", "claim_id": "0" * 12, "reason": "test"}

        assert site.post("/api/evict", body, **headers).status == status


def test_a_write_from_the_own_page_is_allowed(site):
    body = {"name": "x", "claim_id": "0" * 12, "reason": "test"}

    assert site.post("/api/evict", body, origin=f"http://127.0.0.1:{site.port}").status == 409


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_form_of_another_page_cannot_be_a_write(site, kind):
    assert site.post("/api/evict", b"{}", content_type=kind).status == 415


def test_a_long_body_is_refused(site):
    assert site.post("/api/evict", {"name": "x" * 20_000}).status == 413


def test_a_long_query_is_refused(site):
    assert site.get("/api/locks?pattern=" + "x" * 5000).status == 414


def raw(site, text):
    """Everything that the server sends after exactly these bytes, until it ends the connection."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode())
        found = b""
        while data := connection.recv(65536):
            found += data
    return found.decode()


ADMIN = f"Host: localhost\nAuthorization: Bearer {TOKENS['admin']}\n"


@pytest.mark.parametrize(
    "headers",
    [
        (
            "Content-Type: application/json\nOrigin: http://localhost\n"
            "Origin: http://evil.example\nContent-Length: 2\n"
        ),
        "Content-Type: application/json\nContent-Type: text/plain\nContent-Length: 2\n",
        "Content-Type: application/json\nAuthorization: Bearer x\nContent-Length: 2\n",
        (
            "Content-Type: application/json\nSec-Fetch-Site: none\n"
            "Sec-Fetch-Site: cross-site\nContent-Length: 2\n"
        ),
        "Content-Type: application/json\nContent-Length: 2\nTransfer-Encoding: chunked\n",
    ],
)
def test_headers_that_two_may_read_differently_are_refused(site, headers):
    answer = raw(
        site, f"POST /api/evict HTTP/1.1\n{ADMIN}{headers}\n2\n{{}}\n0\n\nGET /livez HTTP/1.1\n{ADMIN}\n"
    )

    assert answer.startswith("HTTP/1.1 400")
    assert '"bad_headers"' in answer
    assert "lockkit.ping" not in answer


def test_head_of_a_stream_has_an_end(site):
    answer = raw(site, f"HEAD /api/events HTTP/1.1\n{ADMIN}Connection: close\n\n")

    assert answer.startswith("HTTP/1.1 405")
    assert site.application.stores.all[0].watch._bells == set()


def test_long_headers_are_refused(site):
    assert site.get("/api/locks", x_long="x" * 17_000).status == 431


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"name": "x"}', b"[" * 5000, b"\xff"])
def test_a_strange_body_is_refused(site, body):
    assert site.post("/api/evict", body, content_type="application/json").status == 400


def test_a_field_that_is_not_known_is_refused(site):
    body = {"name": "x", "claim_id": "0" * 12, "reason": "r", "force": True}

    assert site.post("/api/evict", body).status == 400


def test_a_body_that_does_not_come_is_not_waited_for(site, monkeypatch):
    monkeypatch.setattr("lockkit.server.app._BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as connection:
        connection.sendall(
            b"POST /api/evict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + TOKENS["admin"].encode() + b"\r\nContent-Length: 100\r\n\r\n{"
        )

        assert b" 408 " in connection.recv(100)


def test_answers_say_how_browsers_must_treat_them(site):
    headers = site.get("/api/locks").headers

    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cross-origin-resource-policy"] == "same-origin"


# -- signing in


def signed_in(site, token="admin"):
    answer = site.post("/api/session", {"token": TOKENS[token]}, token=None)
    assert answer.status == 200
    return answer.headers["set-cookie"]


def test_the_cookie_is_kept_from_scripts_and_other_sites(site):
    cookie = signed_in(site)

    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKENS["admin"] not in cookie


def test_the_cookie_stands_for_the_token(site):
    cookie = signed_in(site).partition(";")[0]

    found = site.get("/api/stores", token=None, cookie=cookie).json

    assert (found["visitor"], found["scope"]) == ("adminer", "admin")


def test_a_write_by_cookie_must_say_that_it_comes_from_the_page(site):
    cookie = signed_in(site).partition(";")[0]
    body = {"name": "x", "claim_id": "0" * 12, "reason": "test"}
    origin = f"http://127.0.0.1:{site.port}"

    assert site.post("/api/evict", body, token=None, cookie=cookie).status == 403
    assert site.post("/api/evict", body, token=None, cookie=cookie, origin=origin).status == 409


def test_a_changed_cookie_is_worth_nothing(site):
    name, _, value = signed_in(site, "view").partition(";")[0].partition("=")
    who, until, seal = value.split(":")

    for wrong in (
        f"admin:{until}:{seal}",
        f"{who}:{int(until) + 1}:{seal}",
        f"{who}:{until}:",
        "",
        ":::",
        "é:1:é",
    ):
        assert site.get("/api/stores", token=None, cookie=f"{name}={wrong}".encode()).status == 401


@pytest.mark.parametrize(
    "others",
    [
        "broken[=1",
        '"',
        "a=b=c; =; ;;",
        'x="\\\\\\012',
        "lockkit-session=another:1:x",
        "lockkit-session-1=another:1:x",
        "lockkit-session",
    ],
)
def test_cookies_of_other_programs_do_not_hide_the_own_one(site, others):
    cookie = signed_in(site, "view").partition(";")[0]

    assert site.get("/api/stores", token=None, cookie=f"{others}; {cookie}").json["visitor"] == "viewer"


def test_the_cookies_of_two_servers_of_a_host_have_different_names(site):
    """Browsers send a cookie to all ports of a host, so one server's sign-in would end another's."""
    name = signed_in(site, "view").partition("=")[0]

    assert name == f"lockkit-session-{site.port}"
    from lockkit.server.guard import cookie_of

    assert cookie_of({"server": ("/run/lockkit.sock", None)}) == cookie_of({}) == "lockkit-session"


def test_a_long_strange_cookie_is_read_in_one_pass():
    """Reading one takes as many steps as it has parts, however many backslashes they have."""
    from starlette.datastructures import Headers

    from lockkit.server import guard

    value = '"' + "\\\\" * 7000 + '"'
    headers = Headers({"cookie": f"x={value}; lockkit-session={value}"})
    steps = []
    sys.setprofile(lambda frame, event, what: steps.append(event))
    try:
        found = list(guard._cookies(headers, "lockkit-session"))
    finally:
        sys.setprofile(None)

    assert found == [value]
    assert len(steps) < 100


def test_a_cookie_ends(token_file):
    tokens = TokenFile(str(token_file))
    cookie = tokens.session(TOKENS["view"], now=1000.0)

    assert tokens.signed_in(cookie, now=1001.0).name == "viewer"
    assert tokens.signed_in(cookie, now=1000.0 + 12 * 3600) is None


def test_a_wrong_token_signs_nobody_in(site):
    assert site.post("/api/session", {"token": "x" * 40}, token=None).status == 401


def test_signing_out_removes_the_cookie(site):
    answer = site.post("/api/session/end", token=None)

    assert "Max-Age=0" in answer.headers["set-cookie"]


# -- the token file


def test_a_token_that_is_removed_is_refused_at_once_and_so_is_its_cookie(site, token_file):
    cookie = signed_in(site).partition(";")[0]
    token_file.write_text(f"other admin {'n' * 40}\n")

    assert site.get("/api/stores").status == 401
    assert site.get("/api/stores", token=None, cookie=cookie).status == 401
    assert site.get("/api/stores", token="n" * 40).status == 200


@pytest.mark.parametrize(
    "harm",
    [lambda file: file.chmod(0o644), lambda file: file.unlink(), lambda file: file.write_text("nonsense")],
)
def test_a_file_that_cannot_be_trusted_any_more_lets_nobody_in(site, token_file, harm):
    assert site.get("/api/stores").status == 200
    harm(token_file)

    assert site.get("/api/stores").status == 401


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "has no token"),
        ("# nothing\n", "has no token"),
        ("ann admin short\n", "at least 32"),
        (f"ann root {'x' * 40}\n", "cannot be understood"),
        (f"ann {'x' * 40}\n", "cannot be understood"),
        (f"a/b admin {'x' * 40}\n", "cannot be understood"),
        (f"ann admin {'x' * 40}\nbob view {'x' * 40}\n", "line 2"),
    ],
)
def test_a_file_that_cannot_be_understood_is_an_error_that_quotes_no_token(tmp_path, text, told):
    file = tmp_path / "tokens"
    file.write_text(text)
    file.chmod(0o600)

    with pytest.raises(lockkit.ConfigError, match=told) as raised:
        TokenFile(str(file))

    assert "xxxx" not in str(raised.value)


def test_a_file_that_others_can_read_is_an_error(token_file):
    token_file.chmod(0o640)

    with pytest.raises(lockkit.ConfigError, match="chmod 600"):
        TokenFile(str(token_file))


def test_a_link_to_a_token_file_is_not_followed(token_file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(token_file)

    with pytest.raises(lockkit.ConfigError, match="cannot be read"):
        TokenFile(str(link))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_an_error(token_file):
    os.chown(token_file, 12345, 12345)

    with pytest.raises(lockkit.ConfigError, match="another user"):
        TokenFile(str(token_file))
