"""The page in a real Chromium, over a real ``spherequant serve``."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

import spherequant
from spherequant.index import Index

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SOURCES = Path(spherequant.__file__).parents[1]
PER_CLASS = 12
# A filter that did not quote it would be another filter, a page that trusted it would be changed.
PLACES = ("O'Hara's & <b>Sons</b>", "river", "booth")
HOSTILE = "<img src=x onerror=\"document.title='hurt'\">"
PATIENCE = 30_000  # milliseconds; what is waited for comes in a fraction of one second

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def pictures(digits, tmp_path_factory):
    """Digits with labels and three kinds of metadata, two of them twice, in a folder."""
    folder = tmp_path_factory.mktemp("pictures") / "pictures"
    rows = []
    for path in sorted(digits.glob("*/*.png")):
        label, number = path.parent.name, int(path.stem)
        if number < PER_CLASS:
            labels = [label, "odd" if int(label) % 2 else "even"]
            if label == "7":
                labels.append(HOSTILE)
            rows.append((path, f"{label}/{path.name}", labels, number))
    rows.append((digits / "3/00.png", "3/copy.png", ["3", "odd"], 0))
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(["path", "labels", "place", "year", "weight"])
        for source, key, labels, number in rows:
            (folder / key).parent.mkdir(exist_ok=True)
            shutil.copy(source, folder / key)
            place = PLACES[number % len(PLACES)]
            lines.writerow([key, "|".join(labels), place, 1990 + number, number / 4])
    return folder


@pytest.fixture(scope="session")
def filled(made, pictures, tmp_path_factory):
    """An index of ``pictures``."""
    folder = tmp_path_factory.mktemp("filled") / "index"
    columns = {"place": "string", "year": "int64", "weight": "float64"}
    with Index.create(folder, made.model, metadata_columns=columns) as index:
        index.sync(pictures)
    return folder


@pytest.fixture(scope="session")
def site(filled):
    """``spherequant serve`` as a process of its own, over ``filled``."""
    arguments = ["-m", "spherequant", "serve", str(filled), "--port", "0", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, *arguments], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            line = process.stderr.readline()
            assert " at http://" in line, line + process.stderr.read()
            address = line.split(" at ")[-1].strip()
            with httpx.Client(base_url=address, timeout=60) as client:
                yield SimpleNamespace(url=address, client=client)
        finally:
            process.terminate()
            process.stderr.read()
            process.wait(60)


# Not for the session: while Playwright runs, no test of this thread can run an event loop.
@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: the page is tested in a real browser (apt-get install chromium)")
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, as in containers.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Visitor:
    """One browser window, and what went on in it."""

    def __init__(self, context, url):
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.url = url
        self.requests, self.faults = [], []
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._heard)

    def _asked(self, request):
        self.requests.append(request)

    def _heard(self, message):
        # The browser's own line for each answer that is an error; the page tells it, too.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.faults.append(message.text)

    def open(self, address=""):
        self.page.goto(self.url + address)
        return self.page

    def asked(self, path):
        """Requests to an address of the API."""
        return [request for request in self.requests if f"/{path}" in request.url]


@pytest.fixture
def visit(browser):
    """Open windows on services; nothing in them may fail, or ask any other site."""
    contexts, visitors = [], []

    def start(url, **options):
        options = {"viewport": {"width": 1280, "height": 900}} | options
        contexts.append(browser.new_context(**options))
        visitors.append(Visitor(contexts[-1], url))
        return visitors[-1]

    yield start
    for context in contexts:
        context.close()
    for visitor in visitors:
        assert visitor.faults == []
        elsewhere = [r.url for r in visitor.requests if not r.url.startswith(visitor.url)]
        assert [url for url in elsewhere if not url.startswith(("data:", "blob:"))] == []


@pytest.fixture
def visitor(visit, site):
    """A window of 1280 x 900 on ``site``."""
    return visit(site.url)


@pytest.fixture
def open_page(visitor):
    """Open an address of ``site`` in it."""
    return visitor.open


@pytest.fixture(scope="session")
def accessible():
    """Check a page against axe's rules."""
    axe = Axe()

    def check(page):
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()

    return check


@pytest.fixture
def held():
    """Hold back what a page asks until the block is left."""

    @contextmanager
    def hold(page, pattern):
        routes = []

        def keep(route):  # Playwright takes no built-in function
            routes.append(route)

        page.route(pattern, keep)
        yield routes
        for route in routes:
            route.continue_()
        page.unroute(pattern)

    return hold


@pytest.fixture(scope="session")
def shown():
    """Keys of the results on a page, in their order, once there are some."""

    def keys(page):
        expect(page.locator("#grid")).to_have_attribute("aria-busy", "false")
        expect(page.locator(".tile").first).to_be_visible()
        links = page.locator(".tile-main")
        return links.evaluate_all("links => links.map((link) => link.dataset.item)")

    return keys
