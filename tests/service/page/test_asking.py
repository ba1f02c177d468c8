"""How an image comes to the page, and what is told when it cannot be used."""

from __future__ import annotations

import base64
import json

import pytest
from playwright.sync_api import expect

SEARCH = "**/v1/search*"


@pytest.fixture(scope="session")
def three(pictures):
    return pictures / "3" / "05.png"


@pytest.fixture
def similar(site, three):
    """Keys that the API gives for the image."""

    def ask(**query):
        answer = site.client.post(
            "/v1/search", params=query, files={"image": ("three.png", three.read_bytes())}
        )
        return [hit["key"] for hit in answer.json()["results"]]

    return ask


@pytest.fixture
def transfer(three):
    """Give an event an image, as a drop or a paste does."""

    def send(page, kind, name="three.png", media="image/png"):
        data = base64.b64encode(three.read_bytes()).decode()
        page.evaluate(
            """([kind, data, name, type]) => {
                const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
                const carried = new DataTransfer();
                carried.items.add(new File([bytes], name, { type }));
                const about = { bubbles: true, cancelable: true };
                const event = kind === "paste"
                    ? new ClipboardEvent("paste", { ...about, clipboardData: carried })
                    : new DragEvent(kind, { ...about, dataTransfer: carried });
                document.body.dispatchEvent(event);
            }""",
            [kind, data, name, media],
        )

    return send


def test_a_chosen_image_finds_what_the_api_finds(open_page, three, shown, similar):
    page = open_page()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose an image").click()
    chooser.value.set_files(three)
    expect(page.get_by_role("heading", name="More like this image")).to_be_visible()
    expect(page.locator("#query-name")).to_have_text("05.png")
    picture = page.locator("#query-picture img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 24
    assert shown(page)[:48] == similar(k=48)
    assert "image=" in page.url


def test_a_dropped_and_a_pasted_image_are_searched_with(open_page, transfer, shown, similar):
    page = open_page()
    for kind in ("drop", "paste"):
        transfer(page, kind, f"{kind}.png")
        expect(page.locator("#query-name")).to_have_text(f"{kind}.png")
        assert shown(page)[:48] == similar(k=48)


def test_the_page_shows_where_to_drop(open_page, transfer):
    page = open_page()
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator("#veil")).to_be_hidden()
    transfer(page, "dragover")
    expect(page.locator("#veil")).to_be_visible()
    transfer(page, "drop")
    expect(page.locator("#veil")).to_be_hidden()


def test_a_phone_may_take_a_photo(visit, site, three, shown, similar):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = visit(site.url, **phone).open()
    camera = page.locator("#camera")
    assert camera.get_attribute("capture") == "environment"
    assert camera.get_attribute("accept") == "image/*"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").tap()
    chooser.value.set_files(three)
    expect(page.locator("#query-name")).to_have_text("05.png")
    assert shown(page)[:48] == similar(k=48)


def test_further_pages_send_the_vector_and_not_the_image(visitor, three, shown, similar):
    page = visitor.open()
    page.locator("#file").set_input_files(three)
    expect(page.locator("#query-name")).to_have_text("05.png")
    shown(page)
    # Not a click of the mouse: it would scroll there first, which loads the next page as well.
    page.get_by_role("button", name="Show more").dispatch_event("click")
    expect(page.locator(".tile")).to_have_count(96)
    assert shown(page) == similar(k=96)
    kinds = [r.headers["content-type"].partition(";")[0] for r in visitor.asked("v1/search")]
    assert kinds[0] == "multipart/form-data"
    assert set(kinds[1:]) == {"application/json"}


def test_an_upload_is_shown_and_can_be_given_up(open_page, three, held):
    page = open_page()
    with held(page, SEARCH):
        page.locator("#file").set_input_files(three)
        expect(page.locator("#upload")).to_be_visible()
        expect(page.locator("#status")).to_have_text("Searching…")
    expect(page.locator("#upload")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("results")
    with held(page, SEARCH) as routes:
        page.locator("#file").set_input_files(three)
        expect(page.locator("#upload")).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#upload")).to_be_hidden()
        routes.clear()
    expect(page.locator("#status")).to_contain_text("results")


def test_what_the_service_refuses_is_told_and_can_be_tried_again(visitor, tmp_path, three, shown):
    bad = tmp_path / "broken.png"
    bad.write_bytes(three.read_bytes()[:60])
    page = visitor.open()
    page.locator("#file").set_input_files(bad)
    told = page.get_by_role("alert")
    expect(told.get_by_role("heading", name="Unprocessable")).to_be_visible()
    expect(told.locator("p").first).to_contain_text("cannot be")
    with page.expect_request(SEARCH):
        told.get_by_role("button", name="Try again").click()
    expect(told).to_be_visible()
    with page.expect_file_chooser() as chooser:
        told.get_by_role("button", name="Choose another image").click()
    chooser.value.set_files(three)
    assert shown(page)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_image_bytes": 100}, "this service takes images of at most 100 bytes"),
        ({"max_pixels": 500}, "576 pixels; this service takes images of at most 500"),
    ],
)
def test_too_large_images_are_told_before_they_are_sent(
    visit, serving, folder, three, limits, told
):
    visitor = visit(serving(folder, **limits).url + "/")
    page = visitor.open()
    expect(page.locator(".tile").first).to_be_visible()
    page.locator("#file").set_input_files(three)
    expect(page.get_by_role("alert")).to_contain_text(told)
    assert visitor.asked("v1/search") == []


def test_what_is_no_image_is_told_before_it_is_sent(visitor, tmp_path):
    note = tmp_path / "note.txt"
    note.write_text("a note")
    page = visitor.open()
    page.locator("#file").set_input_files(note)
    expect(page.get_by_role("alert")).to_have_text("note.txt is not an image (text/plain).")
    assert visitor.asked("v1/search") == []


def test_a_key_can_be_typed(open_page, shown):
    page = open_page()
    page.get_by_label("Key of an item").fill("3/05.png")
    page.keyboard.press("Enter")
    expect(page.locator("#query-name")).to_have_text("3/05.png")
    assert "3/05.png" not in shown(page)


def test_an_unknown_key_is_told(open_page):
    page = open_page("?key=nowhere.png")
    told = page.get_by_role("alert")
    expect(told.get_by_role("heading", name="Not Found")).to_be_visible()
    expect(told).to_contain_text("nowhere.png")


def test_a_reload_keeps_the_search_and_another_window_says_that_the_image_is_gone(
    visit, site, open_page, three, shown
):
    page = open_page()
    page.locator("#file").set_input_files(three)
    expect(page.locator("#query-name")).to_have_text("05.png")
    before = shown(page)
    page.reload()
    assert shown(page)[: len(before)] == before
    expect(page.locator("#query-picture img")).to_be_visible()
    other = visit(site.url).open("?" + page.url.partition("?")[2])
    expect(other.get_by_role("heading", name="Choose the image again")).to_be_visible()
    with other.expect_file_chooser() as chooser:
        other.get_by_role("button", name="Choose an image").last.click()
    chooser.value.set_files(three)
    assert shown(other)[: len(before)] == before


def test_a_service_that_is_away_is_told_and_can_be_asked_again(open_page, shown):
    page = open_page()
    shown(page)
    page.route(SEARCH, lambda route: route.abort())
    page.get_by_label("Key of an item").fill("3/05.png")
    page.keyboard.press("Enter")
    told = page.get_by_role("alert")
    expect(told.get_by_role("heading", name="The service does not answer")).to_be_visible()
    page.unroute(SEARCH)
    told.get_by_role("button", name="Try again").click()
    assert shown(page)


def test_a_busy_service_says_when_to_try_again(open_page):
    problem = {"title": "Service Unavailable", "detail": "Too much waits.", "status": 503}

    def busy(route):
        route.fulfill(
            status=503,
            headers={"Retry-After": "7", "Content-Type": "application/problem+json"},
            body=json.dumps(problem),
        )

    page = open_page()
    page.route(SEARCH, busy)
    page.get_by_label("Key of an item").fill("3/05.png")
    page.keyboard.press("Enter")
    told = page.get_by_role("alert")
    expect(told).to_contain_text("Too much waits.")
    expect(told).to_contain_text("It asks to wait 7 seconds.")
