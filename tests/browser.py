"""A real Chromium, which reaches nothing but this machine; what it was refused, asked for and complained of is kept."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.services import require

PLACES = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass
class Observed:
    """What the pages of a context did: hosts asked, errors in the console, failures of scripts."""

    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)


def chromium() -> str:
    """The program; else the test is skipped (fails in CI)."""
    named = os.environ.get("TEST_CHROMIUM")
    found = named or next((place for place in PLACES if Path(place).exists()), None) or shutil.which("chromium")
    require(found is not None, "no Chromium; apt-get install chromium, or TEST_CHROMIUM=PROGRAM")
    return str(found)


@contextmanager
def browser() -> Iterator[object]:
    """A headless browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require(False, "no Playwright; pip install playwright, or the extra browser")
        raise
    program = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=QUIET)
        try:
            yield started
        finally:
            started.close()


def observed(context) -> Observed:
    """Keep what the pages of a context do from now on."""
    found = Observed()
    context.on("request", lambda request: found.hosts.add(urlsplit(request.url).hostname or ""))
    context.on("weberror", lambda error: found.complaints.append(str(error.error)))

    def said(message):
        if message.type == "error":
            found.complaints.append(message.text)

    context.on("console", said)
    return found
