"""Results: tiles, filters, least score, paging, history."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from spherequant.index import Index

KEY = "3/05.png"
HEADS = "#grid .tile-main"


@pytest.fixture
def hits(site):
    """What the API finds for the same question."""

    def ask(**query):
        query = {"k": 48} | query
        answer = site.client.post("/v1/search", params=query, json={"key": KEY})
        return answer.json()["results"]

    return ask


def test_tiles_say_what_they_show(open_page, hits):
    page = open_page(f"?key={KEY}")
    best = hits()[0]
    tile = page.locator(".tile").first
    expect(tile.locator("img")).to_have_attribute("alt", best["key"])
    expect(tile.locator(".labels")).to_have_text(", ".join(best["labels"]))
    expect(tile.locator(".score")).to_contain_text(f"{best['score']:.3f}")
    expect(tile.get_by_role("link", name=f"More like {best['key']}")).to_have_count(1)
    assert tile.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)")
    status = page.locator("#status")
    expect(status).to_have_attribute("role", "status")
    expect(status).to_contain_text(f"best score {best['score']:.3f}")


def test_links_open_in_another_tab_as_well(open_page, visit, site, shown):
    page = open_page(f"?key={KEY}")
    first = shown(page)[0]
    like = page.get_by_role("link", name=f"More like {first}").get_attribute("href")
    other = visit(site.url).open(like.removeprefix("./"))
    expect(other.locator("#query-name")).to_have_text(first)
    details = page.locator(HEADS).first.get_attribute("href")
    third = visit(site.url).open(details.removeprefix("./"))
    expect(third.locator("#details-title")).to_have_text(first.rpartition("/")[2])


def test_labels_are_shown_as_text(open_page):
    page = open_page("?key=7/05.png&label=7")
    expect(page.locator(".labels").first).to_contain_text("<img src=x onerror=")
    page.locator(HEADS).first.click()
    expect(page.locator("dialog .label-list")).to_contain_text("<img src=x onerror=")
    expect(page.locator("img[src='x']")).to_have_count(0)
    assert "hurt" not in page.title()


def test_labels_filter_and_back_undoes_it(open_page, shown, hits):
    page = open_page(f"?key={KEY}")
    everything = shown(page)
    choice = page.get_by_role("group", name="Labels")
    expect(choice.locator("label", has_text=re.compile("^odd"))).to_contain_text("61")
    choice.get_by_role("checkbox", name=re.compile("^8")).check()
    expect(page).to_have_url(re.compile("label=8"))
    expect(page.locator("#status")).to_contain_text("12 results")
    assert shown(page) == [hit["key"] for hit in hits(where="array_has(labels, '8')")]
    choice.get_by_role("checkbox", name=re.compile("^9")).check()
    expect(page.locator("#status")).to_contain_text("24 results")
    page.go_back()
    expect(page.locator("#status")).to_contain_text("12 results")
    page.go_back()
    expect(page.locator("#status")).to_contain_text("48 results")
    assert shown(page) == everything
    expect(choice.get_by_role("checkbox", name=re.compile("^8"))).not_to_be_checked()
    page.go_forward()
    expect(choice.get_by_role("checkbox", name=re.compile("^8"))).to_be_checked()


def test_texts_and_numbers_filter(open_page, shown, hits):
    page = open_page(f"?key={KEY}")
    shown(page)
    page.get_by_role("checkbox", name="O'Hara's & <b>Sons</b>").check()
    expect(page.locator("#status")).to_contain_text("41 results")
    year = page.get_by_label("year from")
    year.fill("1995")
    year.press("Enter")
    where = "place = 'O''Hara''s & <b>Sons</b>' AND year >= 1995"
    expect(page.locator("#status")).to_contain_text("20 results")
    assert shown(page) == [hit["key"] for hit in hits(where=where)]
    weight = page.get_by_label("weight to")
    weight.fill("1.6")
    weight.press("Enter")
    expect(page.locator("#status")).to_contain_text("10 results")
    page.reload()
    expect(page.locator("#status")).to_contain_text("10 results")
    expect(page.get_by_label("weight to")).to_have_value("1.6")
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#status")).to_contain_text("48 results")


@pytest.mark.parametrize("name", ["__proto__", "constructor", "toString"])
def test_names_that_every_object_has_are_no_filters(open_page, shown, name):
    page = open_page(f"?key={KEY}&is.{name}=x&from.{name}=5")
    if name == "__proto__":
        assert shown(page)
    else:
        expect(page.locator("body")).to_contain_text("no column that a filter can name")
    assert page.evaluate("({}).from") is None


def test_many_labels_can_be_searched(open_page):
    page = open_page()
    find = page.get_by_label("Find: Labels")
    find.fill("ev")
    choices = page.get_by_role("group", name="Labels").get_by_role("checkbox")
    expect(choices).to_have_count(1)
    find.fill("")
    expect(choices).to_have_count(13)


def test_filters_work_before_anything_is_asked(open_page, shown):
    page = open_page("?label=8")
    expect(page.get_by_role("heading", name="Changed last")).to_be_visible()
    assert {key[0] for key in shown(page)} == {"8"}
    expect(page.locator("#threshold")).to_be_hidden()


def test_the_least_score_cuts_and_back_restores(open_page, shown, hits):
    page = open_page(f"?key={KEY}")
    everything = shown(page)
    slider = page.get_by_label("Least score")
    scores = [hit["score"] for hit in hits()]
    assert float(slider.get_attribute("min")) <= scores[-1]
    assert float(slider.get_attribute("max")) >= scores[0]
    least = round(scores[10], 3)
    for value in (least - 0.002, least):  # moved twice, undone at once
        slider.fill(f"{value:.3f}")
    expect(page).to_have_url(re.compile(f"min={least:g}"))
    expected = [hit["key"] for hit in hits(min_score=least)]
    expect(page.locator(".tile")).to_have_count(len(expected))
    assert shown(page) == expected
    page.go_back()
    expect(page.locator(".tile")).to_have_count(48)
    assert shown(page) == everything
    expect(page.locator("output")).to_have_text("any")


def test_an_address_with_a_least_score_knows_what_lies_below_it(open_page, hits):
    scores = [hit["score"] for hit in hits()]
    least = round(scores[5], 3)
    page = open_page(f"?key={KEY}&min={least}")
    expect(page.locator(".tile")).to_have_count(len(hits(min_score=least)))
    assert float(page.get_by_label("Least score").get_attribute("min")) <= scores[-1]


def test_nothing_scores_that_high(open_page, hits, shown):
    page = open_page(f"?key={KEY}&min=2")
    notice = page.locator(".notice")
    expect(notice.get_by_role("heading", name="Nothing scores that high")).to_be_visible()
    expect(notice).to_contain_text(f"The best score is {hits()[0]['score']:.3f}")
    expect(page.locator("#status")).to_have_text("No results.")
    notice.get_by_role("button", name="Remove the least score").click()
    assert shown(page) == [hit["key"] for hit in hits()]


def test_no_item_passes_the_filters(open_page, shown):
    page = open_page(f"?key={KEY}&label=nothing&from.year=1992")
    notice = page.locator(".notice")
    expect(notice).to_contain_text("labels: nothing and year from 1992")
    expect(page.get_by_role("checkbox", name="nothing")).to_be_checked()
    notice.get_by_role("button", name="Clear the filters").click()
    assert len(shown(page)) == 48


def test_more_comes_by_scrolling_until_all_is_there(open_page, shown):
    page = open_page(f"?key={KEY}")
    shown(page)
    for count in (96, 120):
        page.locator("#grid .tile").last.scroll_into_view_if_needed()
        expect(page.locator(".tile")).to_have_count(count)
    keys = shown(page)
    assert len(set(keys)) == len(keys) == 120
    assert KEY not in keys
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("120 results of 121 items")


def test_a_page_that_fails_can_be_asked_for_again(open_page, shown):
    page = open_page(f"?key={KEY}")
    shown(page)
    page.route("**/v1/search*", lambda route: route.abort())
    page.locator("#grid .tile").last.scroll_into_view_if_needed()
    told = page.get_by_role("alert")
    expect(told).to_contain_text("The service does not answer")
    expect(page.locator(".tile")).to_have_count(48)
    page.unroute("**/v1/search*")
    told.get_by_role("button", name="Try again").click()
    expect(page.locator(".tile")).to_have_count(96)


def test_more_like_this_and_the_way_back(open_page, shown):
    page = open_page(f"?key={KEY}")
    first = shown(page)
    page.locator("#grid .tile").last.scroll_into_view_if_needed()
    expect(page.locator(".tile")).to_have_count(96)
    tile = page.locator(".tile").nth(60)
    key = tile.locator(".tile-main").get_attribute("data-item")
    tile.scroll_into_view_if_needed()
    tile.hover()
    tile.get_by_role("link", name=f"More like {key}").click()
    expect(page.locator("#query-name")).to_have_text(key)
    expect(page).to_have_title(re.compile("^Like "))
    expect(page.locator("#query-title")).to_be_focused()
    assert shown(page)[:48] != first
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(page.locator("#query-name")).to_have_text(KEY)
    expect(tile).to_be_in_viewport()
    assert shown(page)[:48] == first
    page.go_forward()
    expect(page.locator("#query-name")).to_have_text(key)


def test_clearing_the_query_goes_to_the_start(open_page, shown):
    page = open_page(f"?key={KEY}")
    shown(page)
    page.locator("#query").get_by_role("button", name="Clear").click()
    expect(page.get_by_role("heading", name="Changed last")).to_be_visible()
    expect(page.locator("#query")).to_be_hidden()


def test_an_empty_index_says_how_to_fill_it(visit, made, serving, pictures, tmp_path, eventually):
    folder = tmp_path / "empty"
    Index.create(folder, made.model).close()
    served = serving(folder)
    page = visit(served.url + "/").open()
    notice = page.locator("#notice")
    expect(notice).to_contain_text("spherequant index MODEL photos/ --out INDEX")
    expect(page.locator("#filters")).to_be_hidden()
    with Index.open(folder) as writer:
        writer.sync(pictures)
    eventually(lambda: len(served.engine.searcher) > 0)
    notice.get_by_role("button", name="Look again").click()
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator("#filters")).to_be_visible()
