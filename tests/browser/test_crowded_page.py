"""A thousand locks, and a thousand waiters in one queue: the server filters, sorts and pages."""

from __future__ import annotations

import pytest

from lockkit.testing.claims import open_store, queue, take
from support.dashboard_demo import PATIENT, kept_alive
from support.servers.redis import RedisServer

expect = pytest.importorskip("playwright.sync_api").expect

MANY = 1000
ELEMENTS = 4000
"""The most elements that the page may have. A row has some thirty."""


@pytest.fixture(scope="module")
def crowded():
    """A Redis with many locks, of which one has many waiters; gives its URL."""
    with RedisServer() as redis:
        store = open_store(redis.url())
        try:
            take(store, "crowd", ttl=900.0)
            waiters = []
            with kept_alive(store, waiters):
                waiters.extend((queue(store, "crowd", budget=PATIENT), None) for _ in range(MANY))
                for number in range(MANY):
                    take(store, f"lock/{number:04}", budget=PATIENT, ttl=900.0)
                yield redis.url()
        finally:
            store.close()


@pytest.fixture
def page(visit, serve, crowded):
    one = visit(serve("--url", crowded))
    return one.page


def rows(page):
    """The names of the rows, once the table is complete."""
    expect(page.get_by_role("table")).to_be_visible()
    return page.get_by_role("rowheader").all_inner_texts()


def elements(page):
    return page.evaluate("() => document.querySelectorAll('*').length")


def test_the_first_page_has_the_longest_queue_on_top_and_few_elements(page):
    expect(page.get_by_role("rowheader").first).to_contain_text("crowd")
    expect(page.get_by_role("navigation", name="Pages of locks")).to_contain_text("1 to 50 of 1,001")
    expect(page.get_by_role("list", name="Summary")).to_contain_text("1,000 wait")

    assert len(rows(page)) == 50
    assert elements(page) < ELEMENTS


def test_every_page_is_reached_and_is_a_place_to_come_back_to(page):
    pager = page.get_by_role("navigation", name="Pages of locks")
    page.get_by_label("Sort by").select_option("name")
    expect(page.get_by_role("rowheader").first).to_contain_text("crowd")

    pager.get_by_role("button", name="Next").click()
    expect(pager).to_contain_text("51 to 100 of 1,001")
    expect(page.get_by_role("rowheader").first).to_contain_text("lock/0049")
    page.reload()
    expect(pager).to_contain_text("51 to 100 of 1,001")
    page.go_back()
    expect(pager).to_contain_text("1 to 50 of 1,001")
    expect(page.get_by_role("rowheader").first).to_contain_text("crowd")


def test_a_filter_asks_the_server(page):
    page.get_by_label("Filter", exact=True).fill("lock/099")

    expect(page.get_by_role("rowheader")).to_have_count(10)
    expect(page.get_by_role("rowheader").first).to_contain_text("lock/0990")
    page.get_by_label("Filter", exact=True).fill("no such lock")
    expect(page.get_by_role("rowheader")).to_have_count(0)
    expect(page.get_by_text("No lock matches")).to_be_visible()


def test_a_queue_of_a_thousand_is_shown_in_pages(page):
    page.get_by_role("rowheader").get_by_role("link", name="crowd").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("crowd")
    pager = page.get_by_role("navigation").filter(has_text="of 1,000")
    expect(pager).to_be_visible()
    assert elements(page) < ELEMENTS
    pager.get_by_role("button", name="Next").click()
    expect(pager).to_contain_text("101 to 200 of 1,000")
    assert elements(page) < ELEMENTS
