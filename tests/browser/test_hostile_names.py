"""Names, reasons and owners that are made to be taken for a script are shown as the texts that they are."""

from __future__ import annotations

import urllib.parse

import pytest

from lockkit.facts import Owner
from lockkit.testing.claims import open_store, queue, take

expect = pytest.importorskip("playwright.sync_api").expect

SCRIPT = "<script>window.hacked=1</script>"
IMAGE = '"><img src=x onerror=window.hacked=1>'
LINK = "javascript:window.hacked=1"
NAMES = [
    SCRIPT,
    IMAGE,
    LINK,
    "'; alert(1); '",
    "{{7*7}}${7*7}",
    "a&lt;b&amp;c",
    "%3Cscript%3E",
    "../..#/lock?name=x",
]


@pytest.fixture
def hostile(tmp_path):
    """A store in which everything that a client may choose is hostile; gives its URL."""
    url = f"sqlite:{tmp_path}/locks.db"
    store = open_store(url, state_dir=str(tmp_path / "state"))
    owner = Owner(user=SCRIPT, host=IMAGE, pid=1, program=SCRIPT, task=IMAGE, pod=SCRIPT)
    note = {
        "lockkit": {
            "reason": IMAGE,
            "progress": {"done": 0.5, "message": SCRIPT, "at": 1.0},
            "asked": {"1": {"by": SCRIPT, "reason": IMAGE, "at": 1.0}},
        }
    }
    for name in NAMES:
        take(store, name, ttl=600.0, owner=owner, note=note)
        queue(store, name, ttl=600.0, owner=owner, note=note)
    yield url
    store.close()


def unharmed(page):
    """No script of a name has run, and no name has become an element."""
    return page.evaluate(
        "() => window.hacked === undefined && document.querySelectorAll('main script, main img').length === 0"
    )


def test_the_list_of_locks_shows_every_name_as_it_is(visit, serve, hostile):
    page = visit(serve("--url", hostile)).page

    for name in NAMES:
        expect(page.get_by_role("rowheader").get_by_role("link", name=name, exact=True)).to_be_visible()
    expect(page.get_by_text(IMAGE).first).to_be_visible()
    assert unharmed(page)


def test_the_page_of_each_lock_is_reached_by_its_name_and_shows_it(visit, serve, hostile):
    one = visit(serve("--url", hostile))
    page = one.page

    for name in NAMES:
        page.get_by_role("rowheader").get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(name)
        assert unharmed(page)
        page.get_by_role("link", name="All locks").click()


def test_a_link_to_the_page_of_a_lock_is_no_way_in_either(visit, serve, hostile):
    one = visit(serve("--url", hostile), "#/lock?" + urllib.parse.urlencode({"name": IMAGE}))
    page = one.page

    expect(page.get_by_role("heading", level=1)).to_contain_text(IMAGE)
    assert unharmed(page)
