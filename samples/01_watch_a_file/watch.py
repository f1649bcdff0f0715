"""Watch one recording and print what its watches find. See README.md beside this file."""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.errors import ResadaptError
from pipeline.service.service import Service
from pipeline.types import Event

QUESTIONS = {"car": "is there a car in view?", "person": "is there a person in view?"}


class Printer:
    """A sink of one's own: anything with a name, `publish`, `check` and `close`."""

    name = "printer"

    async def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            since_s = event.data.get("onset_s", event.data.get("cleared_s", event.data.get("stream_s")))
            print(f"{event.type:<16} {event.watch_id or '':<8} at {since_s} s  ({event.id})")

    async def check(self) -> str:
        return "the standard output"

    async def close(self) -> None:
        return


async def watch(url: str, mllm: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = parse_site(
            {
                "streams": {"recording": {"url": url}},
                "watches": {slug: {"question": question} for slug, question in QUESTIONS.items()},
                "mllm": mllm,
                "sinks": {},
                "store": f"sqlite:///{Path(folder) / 'watch.db'}",
            }
        )
        async with Service(site, SystemClock(), [Printer()], insist=False) as service:
            await service.finished()
            counts = service.attachments["recording"].run.counts
    print(f"{counts.hops} hops, {counts.kept} of {counts.frames} frames shown for {counts.spent} vision tokens")


if __name__ == "__main__":
    given = sys.argv[1:]
    try:
        asyncio.run(watch(given[0] if given else "synthetic:?seconds=20", given[1] if len(given) > 1 else "tiny"))
    except ResadaptError as error:
        sys.exit(str(error))
