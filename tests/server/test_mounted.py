"""The application within another one, and the document that describes it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lockkit.server import make_app
from lockkit.server.app import DESCRIPTION
from lockkit.server.endpoints import ENDPOINTS
from lockkit.server.openapi import STATUSES

from .conftest import TOKENS, Site

ROOT = Path(__file__).parents[2]


@pytest.fixture
def application(client, token_file):
    application = make_app([client], token_file=str(token_file))
    yield application
    application.close()


def check_mounted(site):
    """A mounted application answers, signs people in for its part of the site, and describes itself."""
    with site.client.lock("x").acquire():
        assert [lock["name"] for lock in site.get("/locks/api/locks").json["locks"]] == ["x"]
    assert site.get("/locks/livez", token=None).status == 200
    assert site.get("/locks/api/locks", token=None).status == 401
    assert site.get(f"/locks{DESCRIPTION}", token=None).json["servers"] == [{"url": "/locks"}]
    cookie = site.post("/locks/api/session", {"token": TOKENS["view"]}, token=None).headers["set-cookie"]
    assert "Path=/locks" in cookie


def test_it_may_be_mounted_in_fastapi(application, client, serving):
    fastapi = pytest.importorskip("fastapi")
    outer = fastapi.FastAPI()
    outer.mount("/locks", application)

    check_mounted(Site(client, application, serving(outer)))


def test_it_may_be_mounted_beside_django(application, client, serving):
    pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
    import django
    from django.core.asgi import get_asgi_application

    django.setup()
    pages = get_asgi_application()

    async def outer(scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/locks/"):
            await application({**scope, "root_path": "/locks"}, receive, send)
        else:
            await pages(scope, receive, send)

    site = Site(client, application, serving(outer))
    check_mounted(site)
    assert "here" in site.get("/page").text


def urlpatterns_of_the_test():
    from django.http import HttpResponse
    from django.urls import path

    return [path("page", lambda _request: HttpResponse("here"))]


def __getattr__(name):
    if name == "urlpatterns":
        return urlpatterns_of_the_test()
    raise AttributeError(name)


def test_the_document_has_every_endpoint(site):
    paths = site.get(DESCRIPTION).json["paths"]

    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == {
        (one.method, one.path) for one in ENDPOINTS
    }
    statuses = {
        int(status) for path in paths.values() for one in path.values() for status in one["responses"]
    }
    assert statuses <= STATUSES.keys()


def test_the_reference_has_every_endpoint_and_the_application_no_other():
    page = (ROOT / "docs/reference/http-api.md").read_text()

    assert re.findall(r"^\| `((?:GET|POST) \S+)` \|", page, re.MULTILINE) == [
        f"{one.method} {one.path}" for one in ENDPOINTS
    ]


@pytest.mark.full
@pytest.mark.timeout(600)  # a quarter of a minute on an idle machine
def test_schemathesis_finds_no_answer_that_the_document_does_not_have(site, tmp_path):
    """Every endpoint but the endless stream, with valid and invalid requests and an all-powerful token."""
    pytest.importorskip("schemathesis")
    # Control characters in names and reasons fit the document but are refused; a POST precedes its path.
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run"),
            f"http://127.0.0.1:{site.port}{DESCRIPTION}",
            *("--header", f"Authorization: Bearer {TOKENS['admin']}"),
            *("--max-examples", "10", "--seed", "1", "--generation-database", "none", "--no-color"),
            *("--phases", "examples,coverage,fuzzing", "--request-timeout", "30"),
            *(
                "--exclude-path",
                "/api/events",
                "--exclude-path",
                "/api/session",
                "--exclude-path",
                "/api/session/end",
            ),
            *("--exclude-checks", "positive_data_acceptance,unsupported_method"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        cwd=tmp_path,
    )

    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
