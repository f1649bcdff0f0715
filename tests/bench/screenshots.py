"""Pictures of every screen, in both themes, on a phone and on a desk, made from the demo; with --guides those of the
guides too.

python -m tests.bench.screenshots OUT [--guides deploy/pictures] [--url http://127.0.0.1:8080/]
"""

import argparse
import io
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from PIL import Image

from tests.browser import browser

WIDTHS = {1600: 1000, 400: 860}
PLAY_S = 100
BEGIN_S = 420.0
"""Longest time until the demo's address is printed: it films its yards and loads the MLLM before."""
EVENT_S = 60.0
LIVE = ("wall", "stream", "watch")
"""Screens that draw what comes in while they are looked at."""
GUIDES = ("wall", "stream", "event", "watch", "add-watch")
GUIDE_WIDTH, GUIDE_HEIGHT, GUIDE_BYTES = 1280, 1000, 150_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--guides", type=Path, help="write the pictures of the guides there too")
    parser.add_argument("--url", help="of a page that runs already")
    asked = parser.parse_args()
    if asked.url:
        shoot(asked.url, asked.out, asked.guides)
        return
    command = ["resadapt", "demo", "--seconds", str(PLAY_S), "--budget", "0.15", "--page"]
    program = f"import sys; sys.argv = {command!r}; from pipeline.cli.main import main; main()"
    demo = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    late = threading.Timer(BEGIN_S, demo.terminate)
    late.start()
    try:
        url = _address(demo)
        late.cancel()
        shoot(url, asked.out, asked.guides)
    finally:
        late.cancel()
        demo.terminate()
        demo.wait(60)


def _address(demo: "subprocess.Popen[str]") -> str:
    """The address of its page, as it prints it; the rest of its output is read and dropped."""
    assert demo.stderr is not None
    read = []
    for line in demo.stderr:
        read.append(line)
        if found := re.search(r"Page: (\S+)", line):
            threading.Thread(target=demo.stderr.read, daemon=True).start()
            return found[1]
    raise SystemExit(f"the demo offered no page within {BEGIN_S:g} s: {''.join(read[-5:])}")


def shoot(url: str, out: Path, guides: Path | None = None) -> None:
    """All screens; those of the guides first, while the demo's cameras play."""
    out.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        page = chromium.new_page()
        screens = _screens(page, url)
        page.close()
        if guides:
            _for_guides(chromium, url, screens, guides)
        for theme in ("light", "dark"):
            for width, height in WIDTHS.items():
                page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                for name, path in screens.items():
                    _open(page, url + path, name)
                    page.screenshot(path=out / f"{name}-{theme}-{width}.png", full_page=True)
                page.close()
    print(f"{4 * len(screens)} pictures in {out}")


def _open(page, url: str, name: str) -> None:
    page.goto(url)
    page.wait_for_timeout(2500 if name in LIVE else 700)


def _for_guides(chromium, url: str, screens: dict[str, str], guides: Path) -> None:
    guides.mkdir(parents=True, exist_ok=True)
    page = chromium.new_page(viewport={"width": GUIDE_WIDTH, "height": GUIDE_HEIGHT}, color_scheme="light")
    for name in GUIDES:
        if name not in screens:
            continue
        _open(page, url + screens[name], name)
        if name == "wall":  # a few tiles, and room below them
            box = page.locator("#wall").bounding_box()
            clip = {"x": 0, "y": 0, "width": GUIDE_WIDTH, "height": min(box["y"] + box["height"] + 16, GUIDE_HEIGHT)}
            taken = page.screenshot(clip=clip)
        else:
            taken = page.screenshot()
        _reduced(taken, guides / f"{name}.jpg")
    page.close()


def _reduced(png: bytes, path: Path) -> None:
    """A picture as JPEG, as good as fits."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in (88, 80, 70, 60, 50):
        picture.save(path, "JPEG", quality=quality, optimize=True)
        if path.stat().st_size <= GUIDE_BYTES:
            return


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
        time.sleep(2)  # its evidence is written beside the loop
        stream, watch = events[0]["stream"], events[0]["watch"]
    return {
        "wall": "",
        "stream": f"streams/{stream}",
        "watch": f"watches/{watch}",
        **({"event": f"events/{events[0]['id']}"} if events else {}),
        "events": "events",
        "attach": "attach",
        "edit": f"streams/{stream}/edit",
        "areas": f"streams/{stream}/areas",
        "watches": "watches",
        "add-watch": "add-watch",
        "add-sink": "add-sink",
        "system": "system",
        "docs": "docs",
        "refused": "streams/not-there",
    }


if __name__ == "__main__":
    main()
