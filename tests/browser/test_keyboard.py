"""Everything can be done by keyboard alone, and the focus is never lost."""

from __future__ import annotations

import pytest

expect = pytest.importorskip("playwright.sync_api").expect


@pytest.fixture
def page(visit, serve, client):
    with client.lock("nightly").acquire(), client.lock("report").acquire():
        one = visit(serve("--url", client.url, tokens=True), token="operate")
        found = one.page
        expect(found.get_by_role("rowheader")).to_have_count(2)
        yield found


def focus(page):
    """The name of the element that has the focus: its label, its text or its id."""
    return page.evaluate(
        "() => document.activeElement.labels?.[0]?.firstChild.textContent"
        " ?? document.activeElement.textContent"
    )


def tab_to(page, name, key="Tab"):
    """Press a key until an element with this name has the focus."""
    passed = []
    for _ in range(60):
        page.keyboard.press(key)
        passed.append(focus(page).strip())
        if passed[-1].startswith(name):
            return
    raise AssertionError(f"{name!r} is not among {passed}")


def test_the_first_key_leads_past_the_navigation(page):
    page.keyboard.press("Tab")
    assert focus(page).startswith("Skip")

    page.keyboard.press("Enter")

    expect(page.locator("main")).to_be_focused()


def test_filter_and_row_are_reached_and_a_row_is_opened(page):
    tab_to(page, "Filter")
    page.keyboard.type("night")
    expect(page.get_by_role("rowheader")).to_have_count(1)

    tab_to(page, "nightly")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", level=1)).to_contain_text("nightly")
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_a_focus_is_visible(page):
    tab_to(page, "Filter")

    outline = page.evaluate(
        "() => { const look = getComputedStyle(document.activeElement); "
        "return [look.outlineStyle, parseFloat(look.outlineWidth)]; }"
    )
    assert outline[0] != "none"
    assert outline[1] >= 1


def test_a_dialog_keeps_the_focus_until_escape_closes_it_and_then_it_returns(page, client):
    tab_to(page, "Evict")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()

    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "() => document.querySelector('dialog').contains(document.activeElement)"
            " || document.activeElement === document.body"
        )
    page.keyboard.press("Escape")

    expect(dialog).not_to_be_visible()
    assert focus(page).startswith("Evict")
    assert not any(claim.evicted for name in client.names() for claim in client.inspect(name).claims)


def test_the_focus_stays_where_it_is_while_rows_come_and_go(page, client):
    tab_to(page, "report")

    with client.lock("another").acquire():
        expect(page.get_by_role("rowheader")).to_have_count(3)
        assert focus(page) == "report"
    expect(page.get_by_role("rowheader")).to_have_count(2)
    assert focus(page) == "report"
