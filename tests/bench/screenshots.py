"""Pictures of every screen, in both themes, on a phone and on a desk, made from the demo.

python -m tests.bench.screenshots OUT [--url http://127.0.0.1:8080/]
"""

import argparse
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.browser import browser

WIDTHS = {400: 860, 1600: 1000}
PLAY_S = 100
BEGIN_S = 240.0
"""Longest time until the demo's address is printed."""
EVENT_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--url", help="of a page that runs already")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.url:
        shoot(asked.url, asked.out)
        return
    command = [
        sys.executable,
        "-m",
        "pipeline.cli.main",
        "demo",
        "--seconds",
        str(PLAY_S),
        "--budget",
        "0.15",
        "--page",
    ]
    program = f"import sys; sys.argv = {['resadapt', *command[3:]]!r}; from pipeline.cli.main import main; main()"
    demo = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        shoot(_address(demo), asked.out)
    finally:
        demo.terminate()
        demo.wait(60)


def _address(demo: "subprocess.Popen[str]") -> str:
    """Where its page is, as it prints; the rest of what it says is read and dropped."""
    assert demo.stderr is not None
    deadline = time.monotonic() + BEGIN_S
    for line in demo.stderr:
        if found := re.search(r"Page: (\S+)", line):
            threading.Thread(target=demo.stderr.read, daemon=True).start()
            return found[1]
        if time.monotonic() > deadline:
            break
    raise SystemExit("the demo offered no page")


def shoot(url: str, out: Path) -> None:
    """All screens."""
    with browser() as chromium:
        page = chromium.new_page()
        screens = _screens(page, url)
        page.close()
        for theme in ("light", "dark"):
            for width, height in WIDTHS.items():
                page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                for name, path in screens.items():
                    page.goto(url + path)
                    page.wait_for_timeout(2500 if name in ("wall", "stream", "watch") else 700)
                    page.screenshot(path=out / f"{name}-{theme}-{width}.png", full_page=True)
                page.close()
    print(f"{4 * len(screens)} pictures in {out}")


def _screens(page, url: str) -> dict[str, str]:
    """The screens by name, once there is an event to look at."""
    deadline = time.monotonic() + EVENT_S
    while True:
        events = page.request.get(f"{url}v1/events?type=watch.opened&limit=1").json()["items"]
        if events or time.monotonic() > deadline:
            break
        time.sleep(1)
    stream = page.request.get(f"{url}v1/streams?limit=1").json()["items"][0]["slug"]
    watch = page.request.get(f"{url}v1/watches?limit=1").json()["items"][0]["slug"]
    if events:
        stream, watch = events[0]["stream"], events[0]["watch"]
    return {
        "wall": "",
        "stream": f"streams/{stream}",
        "attach": "attach",
        "edit": f"streams/{stream}/edit",
        "areas": f"streams/{stream}/areas",
        "watches": "watches",
        "watch": f"watches/{watch}",
        "add-watch": "add-watch",
        "events": "events",
        **({"event": f"events/{events[0]['id']}"} if events else {}),
        "system": "system",
        "refused": "streams/not-there",
    }


if __name__ == "__main__":
    main()
