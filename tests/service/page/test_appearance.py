"""How it looks to people and to assistive technology: rules of axe, widths, schemes, motion."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

VIEWS = {
    "start": ("", ".tile"),
    "results": ("?key=3/05.png&label=3", ".tile"),
    "details": ("?key=3/05.png&item=3/copy.png", "#details .strip"),
    "collection": ("?view=collection", ".group"),
    "failure": ("?key=nowhere.png", "[role=alert]"),
    "nothing": ("?key=3/05.png&min=2", ".notice"),
}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WINDOW = {"viewport": {"width": 1280, "height": 900}}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_no_rule_of_axe_is_broken(visit, site, accessible, view, scheme):
    address, sign = VIEWS[view]
    size = PHONE if scheme == "dark" else WINDOW
    page = visit(site.url, color_scheme=scheme, reduced_motion="reduce", **size).open(address)
    expect(page.locator(sign).first).to_be_visible()
    if scheme == "dark" and view == "results":
        page.get_by_role("button", name="Filters").tap()
        expect(page.get_by_label("Least score")).to_be_visible()
    accessible(page)


@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
def test_nothing_is_wider_than_the_window(visit, site, width):
    page = visit(site.url, viewport={"width": width, "height": 800}).open()
    for address, sign in VIEWS.values():
        page.goto(site.url + address)
        expect(page.locator(sign).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark_follow_the_system(visit, site):
    grounds = []
    for scheme in ("light", "dark"):
        page = visit(site.url, color_scheme=scheme).open()
        colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        grounds.append(sum(map(int, colour[4:-1].split(","))))
    assert grounds[0] > 600 > 150 > grounds[1]


def test_nothing_moves_for_who_wants_no_motion(visit, site):
    moving = {}
    for motion in ("no-preference", "reduce"):
        page = visit(site.url, reduced_motion=motion).open()
        moving[motion] = page.evaluate(
            """() => [...document.querySelectorAll("*")].filter((element) => {
                const { transitionDuration, animationName } = getComputedStyle(element);
                return transitionDuration !== "0s" || animationName !== "none";
            }).length"""
        )
    assert moving["reduce"] == 0 < moving["no-preference"]


def test_filters_fold_on_a_phone(visit, site, shown):
    page = visit(site.url, **PHONE).open("?key=3/05.png")
    shown(page)
    toggle = page.get_by_role("button", name="Filters")
    expect(toggle).to_have_attribute("aria-expanded", "false")
    expect(page.get_by_label("Least score")).to_be_hidden()
    toggle.tap()
    expect(toggle).to_have_attribute("aria-expanded", "true")
    page.get_by_role("checkbox", name="river").check()
    expect(page.get_by_role("button", name="Filters (1)")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Least score")).to_be_hidden()
    expect(toggle).to_be_focused()


def test_sizes_in_bytes(visit, site):
    page = visit(site.url).open()
    asked = [0, 1, 999, 1_000, 1_230, 100_000, 120_000, 999_400, 999_600, 250_000_000, 5 * 10**15]
    told = page.evaluate(
        "async (sizes) => { const { bytes } = await import('/page/format.js');"
        "return sizes.map(bytes); }",
        asked,
    )
    assert told == [
        *(
            "0 bytes",
            "1 byte",
            "999 bytes",
            "1 kB",
            "1.23 kB",
            "100 kB",
            "120 kB",
            "999 kB",
            "1 MB",
        ),
        *("250 MB", "5000 TB"),
    ]
