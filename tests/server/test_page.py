"""The page: its files, and how they are served. tests/browser tests it in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lockkit.server import make_app
from lockkit.server.endpoints import ENDPOINTS
from lockkit.server.pages import FOLDER

from .conftest import Site

FILES = sorted(path for path in FOLDER.iterdir())
NAMESPACE = "http://www.w3.org/2000/svg"


def place(path: Path) -> str:
    """The path by which browsers ask for a file."""
    return "/" if path.name == "index.html" else f"/page/{path.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_of_the_page_is_served_without_a_token(site, path):
    got = site.get(place(path), token=None)

    assert got.status == 200
    assert got.text == path.read_text()
    kind = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert got.headers["content-type"].partition(";")[0] == kind[path.suffix]


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_within_its_markup(site):
    headers = site.get("/", token=None).headers

    assert headers["content-security-policy"].split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    ]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"


def test_the_answers_of_the_api_keep_their_own_stricter_policy(site):
    assert site.get("/api/locks").headers["content-security-policy"].startswith("default-src 'none'; frame")


def test_a_browser_asks_each_time_whether_its_copy_is_still_the_file(site):
    got = site.get("/page/app.js", token=None)
    again = site.get("/page/app.js", token=None, if_none_match=got.headers["etag"])
    other = site.get("/page/app.js", token=None, if_none_match='"another"')

    assert got.headers["cache-control"] == "no-cache"
    assert (again.status, again.text) == (304, "")
    assert again.headers["etag"] == got.headers["etag"]
    assert other.status == 200


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nothing.js", "/page/../app.py", "/page/%2e%2e/app.py", "/page/index.html"]
)
def test_nothing_but_the_files_of_the_page_is_served(site, path):
    assert site.get(path).status == 404
    assert site.get(path, token=None).status == 401


def test_the_page_is_read_only(site):
    assert site.post("/").status == 405


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_place(path):
    """The page works behind any prefix and offline: its own files and endpoints have relative URLs."""
    text = path.read_text().replace(NAMESPACE, "")

    assert not re.findall(
        r"https?:|wss?:|(?:href|src)=[\"']/|(?:fetch|get|post|EventSource)\([\"'`]/|url\(", text
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_texts_become_elements_by_no_way_that_reads_markup(path):
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|"
        r"\bstyle=|srcdoc|javascript:|\bon\w+=[\"']"
    )

    assert not re.findall(forbidden, path.read_text())


def test_scripts_and_styles_are_files(site):
    html = site.get("/", token=None).text

    assert "<style" not in html
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    named = re.findall(r"(?:href|src)=\"(page/[^\"]+)\"", html)
    assert all(FOLDER.parent.joinpath(name).is_file() for name in named)


def test_each_script_imports_only_scripts_that_are_there():
    for path in FOLDER.glob("*.js"):
        for name in re.findall(r"from \"\./([^\"]+)\"", path.read_text()):
            assert FOLDER.joinpath(name).is_file(), f"{path.name} imports {name}"


def test_the_page_asks_only_endpoints_that_exist():
    known = [re.sub(r"{\w+}", "x", one.path) for one in ENDPOINTS]
    asked = {
        re.sub(r"\$\{[^}]*\}", "[^/]+", found)
        for path in FOLDER.glob("*.js")
        for found in re.findall(r"[\"'`]((?:api/[^\"'`?]*|health(?=[\"?])))", path.read_text())
    }

    assert {"api/locks", "api/lock", "api/events", "api/session"} <= asked
    assert [one for one in asked if not any(re.fullmatch(f"/{one}", path) for path in known)] == []


def test_without_javascript_the_page_says_where_else_to_look(site):
    html = site.get("/", token=None).text
    noscript = html[html.index("<noscript>") : html.index("</noscript>")]

    assert "lockkit status" in noscript
    assert 'href="api/locks"' in noscript


def test_the_page_works_behind_a_prefix(client, token_file, serving):
    application = make_app([client], token_file=str(token_file))
    behind = Site(client, application, serving(application, root_path="/locks"))

    assert behind.get("/", token=None).status == 200
    assert behind.get("/page/app.js", token=None).status == 200


def test_the_page_of_a_mounted_application_is_led_to_the_slash_at_its_end(client, token_file, serving):
    inner = make_app([client], token_file=str(token_file))

    async def outer(scope, receive, send):
        await inner({**scope, "root_path": "/locks"}, receive, send)

    site = Site(client, inner, serving(outer))
    led = site.get("/locks", token=None)

    assert (led.status, led.headers["location"]) == (308, "/locks/")
    assert site.get("/locks/", token=None).status == 200
    inner.close()
