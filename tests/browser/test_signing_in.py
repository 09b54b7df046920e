"""Signing in and out: the page shows, and lets visitors do, what their tokens allow."""

from __future__ import annotations

import pytest

from .conftest import TOKENS

expect = pytest.importorskip("playwright.sync_api").expect

REFUSED = r"Failed to load resource: the server responded with a status of 401"
"""The browser's own message about an answer that asks for a token."""


@pytest.fixture
def locked(visit, serve):
    """The page of a server with tokens, before anybody has signed in; and the server."""

    def open_page(**options):
        served = serve(tokens=True)
        one = visit(served, **options)
        one.expected.append(REFUSED)
        return one, served

    return open_page


def sign_in(page, token):
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_a_visitor_signs_in_and_out(locked, client):
    one, _ = locked()
    with client.lock("secret/plan").acquire():
        expect(one.page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert "secret/plan" not in one.page.content()

        sign_in(one.page, TOKENS["operate"])
        expect(one.page.get_by_role("link", name="secret/plan")).not_to_have_count(0)
        expect(one.page.locator("#visitor")).to_contain_text("operateer")
        (cookie,) = one.page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKENS["operate"] not in one.page.content()

        one.page.get_by_role("button", name="Sign out").click()
        expect(one.page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert one.page.context.cookies() == []
        assert "secret/plan" not in one.page.content()


def test_a_visitor_who_has_signed_in_stays_so_after_a_reload(locked):
    one, _ = locked()
    sign_in(one.page, TOKENS["view"])
    expect(one.page.locator("#visitor")).to_contain_text("viewer")

    one.page.reload()

    expect(one.page.locator("#visitor")).to_contain_text("viewer")


def test_a_wrong_token_is_refused_in_words_and_may_be_corrected(locked):
    one, _ = locked()

    sign_in(one.page, "w" * 40)
    expect(one.page.get_by_role("alert")).to_contain_text("not known")
    assert one.page.context.cookies() == []

    sign_in(one.page, TOKENS["view"])
    expect(one.page.locator("#visitor")).to_contain_text("viewer")


def test_a_token_that_is_removed_from_the_file_ends_the_visit(locked, client):
    one, served = locked()
    sign_in(one.page, TOKENS["view"])
    expect(one.page.locator("#live")).to_have_text("Live")

    served.write_tokens("admin")
    with client.lock("x").acquire():
        expect(one.page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(one.page.get_by_role("table")).to_have_count(0)


def test_a_server_without_tokens_only_shows(visit, serve, client):
    with client.lock("x").acquire():
        page = visit(serve()).page
        expect(page.get_by_role("link", name="x", exact=True).first).to_be_visible()

        expect(page.locator("#visitor")).to_have_text("View only")
        expect(page.get_by_role("button", name="Evict")).to_have_count(0)
        expect(page.get_by_role("button", name="Sign")).to_have_count(0)


@pytest.mark.parametrize("scope,count", [("view", 0), ("operate", 1)])
def test_the_buttons_are_those_that_the_token_allows(visit, serve, client, scope, count):
    served = serve(tokens=True)
    with client.lock("x").acquire():
        page = visit(served, token=scope).page
        expect(page.get_by_role("rowheader", name="x")).to_be_visible()

        expect(page.get_by_role("button", name="Evict")).to_have_count(count)
        expect(page.get_by_role("button", name="Ask to release")).to_have_count(count)
