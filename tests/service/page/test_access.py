"""API keys."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

KEY = "a key to read with"
ITEM = "digits/3/05.png"


@pytest.fixture(scope="module")
def locked(serve_copy):
    with serve_copy(read_keys=(KEY,)) as served:
        yield served.url + "/"


def give(page, key):
    dialog = page.get_by_role("dialog", name="This service asks for an API key")
    dialog.get_by_label("API key").fill(key)
    dialog.get_by_role("button", name="Use this key").click()


def test_a_key_is_asked_for_and_kept_for_the_tab(visit, locked, shown):
    page = visit(locked).open(f"?key={ITEM}")
    give(page, "no key of this service")
    expect(page.locator("#key-text")).to_contain_text("not accepted")
    give(page, KEY)
    assert shown(page)
    picture = page.locator(".tile img").first
    expect(picture).to_have_js_property("naturalWidth", 24)
    assert picture.get_attribute("src").startswith("blob:")
    kept = "storage => Object.values({ ...storage }).join()"
    assert KEY in page.evaluate_handle("sessionStorage").evaluate(kept)
    assert KEY not in page.evaluate_handle("localStorage").evaluate(kept)
    assert page.context.cookies() == []
    assert KEY not in page.url
    page.reload()
    assert shown(page)


def test_without_a_key_the_page_says_so_and_asks_again(visit, locked, shown):
    page = visit(locked).open(f"?key={ITEM}")
    page.get_by_role("button", name="Cancel").click()
    told = page.get_by_role("alert")
    expect(told.get_by_role("heading", name="Unauthorized")).to_be_visible()
    told.get_by_role("button", name="Enter an API key").click()
    give(page, KEY)
    assert shown(page)


def test_originals_are_saved_with_a_key(visit, locked, digits):
    page = visit(locked).open(f"?item={ITEM}")
    give(page, KEY)
    link = page.get_by_role("link", name="Save the original")
    with page.expect_download() as saved:
        link.click()
    assert saved.value.suggested_filename == "05.png"
    assert saved.value.path().read_bytes() == (digits / "3/05.png").read_bytes()


def test_a_key_that_no_header_can_hold_is_not_taken(visit, locked, shown):
    page = visit(locked).open(f"?key={ITEM}")
    give(page, "\u201cright-key-right-key\u201d")
    field = page.locator("#api-key")
    expect(field).to_be_visible()
    assert field.evaluate("field => field.validity.patternMismatch")
    give(page, KEY)
    assert shown(page)
