"""The page serves those who do not see it, who use no mouse, who like it dark, and who have a telephone."""

from __future__ import annotations

import pytest

expect = pytest.importorskip("playwright.sync_api").expect
Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe

PLACES = {
    "locks": "#/locks",
    "lock": "#/lock?name=db%2Fmigrate",
    "reader": "#/lock?name=index%2Fproducts",
    "gpus": "#/gpus",
    "alerts": "#/alerts",
    "failures": "#/failures",
    "history": "#/history?span=604800",
}
"""Every page of the dashboard, by a name for it."""
TELEPHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


def complete(page):
    """Wait until a page shows what it is about."""
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("main h1")).to_be_visible()
    return page


def serious(page):
    """The faults that axe-core finds in a page and that keep somebody out."""
    found = Axe().run(page).response["violations"]
    return [
        (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def overflow(page):
    """Pixels by which the page is wider than the screen, and the elements that make it so."""
    return page.evaluate(
        """() => {
            const wide = document.scrollingElement.scrollWidth - innerWidth;
            if (wide <= 0) return [0, []];
            const beyond = (one) => one.getBoundingClientRect().right > innerWidth;
            const out = [...document.querySelectorAll("*")].filter(beyond);
            return [wide, out.slice(-5).map((one) => one.outerHTML.slice(0, 150))];
        }"""
    )


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_axe_finds_nothing_serious(visit, demo, place, colours):
    page = visit(demo, PLACES[place], token="operate", color_scheme=colours, bypass_csp=True).page

    assert serious(complete(page)) == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious_where_one_signs_in_and_in_a_dialog(visit, demo, colours):
    one = visit(demo, color_scheme=colours, bypass_csp=True)
    one.expected.append("status of 401")
    expect(one.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert serious(one.page) == []

    page = complete(visit(demo, token="operate", color_scheme=colours, bypass_csp=True).page)
    page.get_by_role("button", name="Evict").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert serious(page) == []


@pytest.mark.parametrize("place", PLACES)
def test_a_telephone_shows_each_page_without_scrolling_sideways(visit, demo, place):
    page = visit(demo, PLACES[place], token="operate", **TELEPHONE).page

    assert overflow(complete(page)) == [0, []]


@pytest.mark.parametrize("place", PLACES)
def test_no_width_of_a_window_needs_scrolling_sideways(visit, demo, place):
    page = complete(visit(demo, PLACES[place], token="operate").page)
    for width in (600, 740, 768, 800, 840, 900, 960, 1024, 1100):
        page.set_viewport_size({"width": width, "height": 900})
        assert (width, *overflow(page)) == (width, 0, [])


def test_a_telephone_shows_the_dialog_and_the_sign_in_without_scrolling_sideways(visit, demo):
    one = visit(demo, **TELEPHONE)
    one.expected.append("status of 401")
    expect(one.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert overflow(one.page) == [0, []]

    page = complete(visit(demo, token="operate", **TELEPHONE).page)
    page.get_by_role("button", name="Evict").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert overflow(page) == [0, []]
    assert dialog.evaluate("(one) => one.scrollWidth <= one.clientWidth")
