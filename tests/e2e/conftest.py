"""What several e2e tests need."""

import shutil

import pytest


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, by Playwright."""
    from playwright.sync_api import sync_playwright  # here: most tests do without, and its import takes its time

    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()
