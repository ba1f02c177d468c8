"""The dialog of one item, and the keys of the keyboard."""

from __future__ import annotations

import re

from playwright.sync_api import expect

KEY = "3/05.png"


def test_details_hold_everything_that_is_known(open_page, shown, site):
    page = open_page(f"?key={KEY}")
    key = shown(page)[0]
    page.locator(".tile-main").first.click()
    dialog = page.get_by_role("dialog", name=key.rpartition("/")[2])
    expect(dialog).to_be_visible()
    item = site.client.get("/v1/items", params={"key": key}).json()
    facts = dialog.locator(".facts")
    for text in (*item["labels"], key, item["metadata"]["place"], str(item["metadata"]["year"])):
        expect(facts).to_contain_text(text)
    expect(facts.locator("dt").first).to_have_text("Score")
    expect(page).to_have_url(re.compile("item="))


def test_the_original_opens(open_page, pictures):
    page = open_page("?key=3/06.png&item=3/05.png")
    link = page.get_by_role("link", name="Open the original")
    with page.expect_popup() as opened:
        link.click()
    shown = opened.value
    shown.wait_for_load_state()
    answer = page.request.get(shown.url)
    assert answer.body() == (pictures / "3" / "05.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"


def test_near_duplicates_lead_to_each_other(open_page):
    page = open_page("?item=3/copy.png")
    near = page.locator("dialog .strip a", has_text="same file")
    expect(near).to_have_attribute("data-item", "3/00.png")
    near.click()
    expect(page.locator("#details-title")).to_have_text("00.png")


def test_escape_the_button_and_back_close(open_page, shown):
    page = open_page(f"?key={KEY}")
    shown(page)
    dialog = page.locator("#details")
    closings = (
        lambda: page.keyboard.press("Escape"),
        lambda: dialog.get_by_role("button", name="Close").click(),
        page.go_back,
    )
    for close in closings:
        page.locator(".tile-main").first.click()
        expect(dialog.locator(".facts")).to_be_visible()
        close()
        expect(dialog).to_be_hidden()
        assert "item=" not in page.url
        expect(page.locator("#query-name")).to_have_text(KEY)


def test_an_address_of_details_closes_to_its_search(open_page, shown):
    page = open_page(f"?key={KEY}&item=3/copy.png")
    expect(page.locator("#details .facts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    assert shown(page)


def test_details_turn_to_the_next_result(open_page, shown):
    page = open_page(f"?key={KEY}")
    keys = shown(page)
    page.locator(".tile-main").first.click()
    title = page.locator("#details-title")
    expect(page.get_by_role("button", name="Previous result")).to_be_disabled()
    page.get_by_role("button", name="Next result").click()
    expect(title).to_have_text(keys[1].rpartition("/")[2])
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text(keys[2].rpartition("/")[2])
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text(keys[1].rpartition("/")[2])
    page.go_back()
    expect(page.locator("#details")).to_be_hidden()


def test_more_like_this_from_the_details(open_page, shown):
    page = open_page(f"?key={KEY}")
    key = shown(page)[0]
    page.locator(".tile-main").first.click()
    page.locator("#details").get_by_role("link", name="More like this").click()
    expect(page.locator("#details")).to_be_hidden()
    expect(page.locator("#query-name")).to_have_text(key)


def test_details_of_what_is_gone(open_page):
    page = open_page("?item=nowhere.png")
    expect(page.locator("#details").get_by_role("alert")).to_contain_text("nowhere.png")


def test_a_slash_goes_to_the_field_and_arrows_through_the_results(open_page, shown):
    page = open_page(f"?key={KEY}")
    shown(page)
    page.keyboard.press("/")
    expect(page.get_by_label("Key of an item")).to_be_focused()
    expect(page.get_by_label("Key of an item")).to_have_value("")
    tiles = page.locator(".tile-main")
    tops = [tile.bounding_box()["y"] for tile in tiles.all()[:12]]
    across = tops.count(tops[0])
    assert across > 2
    tiles.first.focus()
    for key, place in (
        ("ArrowRight", 1),
        ("ArrowDown", 1 + across),
        ("ArrowLeft", across),
        ("ArrowUp", 0),
        ("End", 47),
        ("Home", 0),
        ("ArrowUp", 0),
    ):
        page.keyboard.press(key)
        expect(tiles.nth(place)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()
    page.keyboard.press("Escape")
    expect(tiles.first).to_be_focused()


def test_all_is_reached_by_tab_and_seen_to_be(open_page, shown):
    page = open_page(f"?key={KEY}&label=3")
    count = len(shown(page))
    reached = []
    while not reached or reached[-1] != "the end":
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => {
                const here = document.activeElement;
                if (here === document.body) return ["the end", "solid"];
                const name = here.dataset.item ?? here.dataset.like ?? here.id;
                return [name || here.textContent || here.type, getComputedStyle(here).outlineStyle];
            }"""
        )
        assert outline != "none", name
        reached.append(name)
        assert len(reached) < 200
    for name in ("choose", "key-input", "to-collection", "query-clear", "threshold"):
        assert name in reached
    keys = shown(page)
    assert all(reached.count(key) == 2 for key in keys)  # its details, and what is like it
    assert count == len(keys)
