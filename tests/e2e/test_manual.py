"""The manual as its readers meet it: in a browser, on a phone and on a desk, with nothing asked of another host."""

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from playwright.sync_api import expect

from support.serving import LIMIT, ROOT

WIDTHS = {"phone": 360, "desk": 1280}
SEARCHED = "search/search_index.json"
LOUD = ("error", "warning")  # kinds of messages on the console
TOO_WIDE = """
() => [...document.querySelectorAll("main *")]
  .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .filter(one => !one.closest(".md-typeset__scrollwrap, pre"))
  .slice(0, 5).map(one => one.tagName + ": " + one.textContent.trim().slice(0, 60))
"""
CUT = """
what => [...document.querySelectorAll(what)].filter(one => one.scrollWidth > one.clientWidth + 1)
  .map(one => one.textContent.trim().slice(0, 40))
"""

expect.set_options(timeout=LIMIT * 1000)
pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]  # all pages, which is a minute's work for two at once


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The site, built as `make docs` builds it."""
    site = tmp_path_factory.mktemp("manual") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, env=quiet)
    assert built.returncode == 0, built.stderr
    return site


@pytest.fixture(scope="module")
def site(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(LIMIT)


@pytest.fixture(scope="module")
def pages(folder):
    found = sorted(str(page.relative_to(folder)) for page in folder.rglob("*.html"))
    assert len(found) > 20
    return found


@pytest.fixture(scope="module", params=WIDTHS)
def seen(request, browser, site, pages, folder):
    """What a browser finds on a screen of that kind: it loads every page once.

    Each page loads what its search looks into, 0.2 s of CPU for nothing: here that is empty.
    """
    index = {**json.loads((folder / SEARCHED).read_text()), "docs": []}
    found = SimpleNamespace(asked=[], complaints=[], too_wide={}, cut={})
    with browser.new_context(viewport={"width": WIDTHS[request.param], "height": 740}) as context:
        page = context.new_page()
        page.route(f"{site}/{SEARCHED}", lambda route: route.fulfill(json=index))
        page.on("request", lambda asked: found.asked.append(asked.url))
        page.on("console", lambda said: found.complaints.append(said.text) if said.type in LOUD else None)
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        for name in pages:
            page.goto(f"{site}/{name}", wait_until="load")
            root = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            if root[0] > root[1]:
                found.too_wide[name] = root, page.evaluate(TOO_WIDE)
            files = "span.filename + pre code" if name.startswith("tutorial/") else "x"
            cut = page.evaluate(CUT, f"{files}, .md-typeset__scrollwrap")
            if cut:
                found.cut[name] = cut
    return found


def test_every_page_fits_and_asks_no_other_host(seen, site):
    assert not seen.too_wide
    assert not seen.complaints
    assert seen.asked
    assert not [url for url in seen.asked if not url.startswith((site, "data:", "blob:"))]


@pytest.mark.parametrize("seen", ["desk"], indirect=True)
def test_a_desk_shows_files_of_the_tutorial_and_tables_whole(seen):
    assert not seen.cut


def test_its_search_finds_what_a_page_says(browser, site):
    with browser.new_context(viewport={"width": 1280, "height": 740}) as context:
        page = context.new_page()
        page.goto(f"{site}/index.html")
        page.get_by_role("textbox", name="Search").press_sequentially("connections_of")
        page.locator(".md-search-result__link", has_text="connections_of").first.click()
        expect(page.locator("article")).to_contain_text("connections_of")


def test_its_code_is_in_colour(browser, site):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site}/index.html")
        of = "(selector) => getComputedStyle(document.querySelector(selector)).color"
        assert page.evaluate(of, ".language-python .kn") != page.evaluate(of, ".language-python .n")


def test_it_can_be_dark(browser, site):
    shades = []
    for scheme in ("light", "dark"):
        with browser.new_context(color_scheme=scheme) as context:
            page = context.new_page()
            page.goto(f"{site}/index.html")
            shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
            shades.append(sum(int(part) for part in re.findall(r"\d+", shade)[:3]))
    assert shades[0] > 600
    assert shades[1] < 150
