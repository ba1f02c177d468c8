"""The second view."""

from __future__ import annotations

import re

from playwright.sync_api import expect


def test_the_collection_is_told(open_page, site, shown):
    page = open_page()
    shown(page)
    page.get_by_role("link", name="Collection").click()
    expect(page).to_have_url(re.compile("view=collection"))
    expect(page.get_by_role("heading", name="Collection", level=1)).to_be_visible()
    facts = site.client.get("/v1/collection").json()
    size = page.get_by_role("region", name="Size")
    expect(size).to_contain_text(f"{facts['items']}")
    expect(size).to_contain_text(f"{facts['bytes_per_item']} bytes")
    expect(size).to_contain_text(facts["fingerprint"][:12])
    for name in ("In memory", "On disk", "of it thumbnails", "of it originals"):
        expect(size.get_by_text(name, exact=True)).to_be_visible()
    page.go_back()
    assert shown(page)


def test_classes_have_counts_and_lead_to_their_items(open_page, shown):
    page = open_page("?view=collection")
    classes = page.get_by_role("region", name="Classes")
    expect(classes.get_by_role("listitem")).to_have_count(13)
    first = classes.get_by_role("listitem").first
    expect(first).to_have_text(re.compile("odd61$"))
    classes.locator("[data-label='8']").click()
    expect(page).to_have_url(re.compile(r"\?label=8$"))
    assert {key[0] for key in shown(page)} == {"8"}


def test_recent_changes_open_their_items(open_page, site):
    page = open_page("?view=collection")
    latest = site.client.get("/v1/collection").json()["recent"][0]["key"]
    changes = page.get_by_role("region", name="Recent changes")
    expect(changes.get_by_role("listitem")).to_have_count(12)
    expect(changes.locator("time").first).to_have_text(re.compile("ago|now"))
    changes.get_by_role("link").first.click()
    expect(page.locator("#details .facts")).to_contain_text(latest)
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    expect(changes).to_be_visible()


def test_duplicates_stand_in_groups(open_page, site):
    page = open_page("?view=collection")
    twice = page.get_by_role("region", name="Near duplicates")
    found = site.client.get("/v1/duplicates", params={"limit": 120}).json()
    expect(twice.get_by_role("listitem")).to_have_count(min(12, len(found["groups"])))
    twice.get_by_label("How alike").select_option("exact")
    expect(twice.get_by_role("listitem")).to_have_count(1)
    group = twice.get_by_role("listitem")
    expect(group.locator("a")).to_have_count(2)
    expect(twice.get_by_label("How alike")).to_have_value("exact")
    group.locator("a[data-item='3/copy.png']").click()
    expect(page.locator("#details-title")).to_have_text("copy.png")


def test_a_part_that_fails_leaves_the_others(open_page):
    page = open_page()
    page.route("**/v1/labels*", lambda route: route.abort())
    page.get_by_role("link", name="Collection").click()
    classes = page.get_by_role("region", name="Classes")
    expect(classes.get_by_role("alert")).to_contain_text("The service does not answer")
    expect(page.get_by_role("region", name="Recent changes").get_by_role("listitem")).to_have_count(
        12
    )
    page.unroute("**/v1/labels*")
    classes.get_by_role("button", name="Try again").click()
    expect(classes.get_by_role("listitem")).to_have_count(13)
