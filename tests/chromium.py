"""The browser of the tests: a real Chromium, or a loud skip where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

EXECUTABLE = Path(os.environ.get("SR_TEST_CHROMIUM", "/usr/bin/chromium"))


@contextmanager
def launched() -> Iterator[Browser]:
    """Run Chromium."""
    if not EXECUTABLE.exists():
        reason = f"NOT RUN: no Chromium at {EXECUTABLE}; install it or set SR_TEST_CHROMIUM"
        if os.environ.get("SR_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        yield browser
        browser.close()
