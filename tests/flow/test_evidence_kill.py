"""A process killed while it writes evidence names no file that is not there, whole; what it did not name goes."""

import os
import random
import signal
import subprocess
import sys
import time

from pipeline.clock import SystemClock
from pipeline.delivery.history import EventFilter
from pipeline.delivery.store import Store
from pipeline.evidence.shelf import Shelf
from pipeline.evidence.writer import About, Writer
from tests.evidence import site

WRITER = """
import asyncio, sys
from pathlib import Path
import pipeline.service.opening as opening
from pipeline.clock import SystemClock
from pipeline.service.service import Service
from pipeline.testing import ScriptedMLLM
from tests.evidence import site
flapping = lambda context, query: 0.9 if int(context.segments[-1].pts_s[-1]) % 2 else 0.1
opening.build_mllm = lambda *_: ScriptedMLLM(flapping)
async def main():
    url = "synthetic:?seconds=inf&width=320&height=192&fps=4"
    watches = {"bar": {"question": "is a bar in view?"}}
    async with Service(site(Path(sys.argv[1]), url, watches=watches), SystemClock()) as service:
        print("serving", flush=True)
        await service.finished()
asyncio.run(main())
"""


def test_a_kill_leaves_every_named_file_whole_and_every_other_swept(tmp_path):
    random_s = random.Random(7)
    wanted = site(tmp_path, "synthetic:")
    folder = tmp_path / "service-evidence"
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ, text=True
        )
        assert any(line.startswith("serving") for line in writer.stdout)
        until = time.monotonic() + 30
        while not list(folder.glob("????-*/*/*.png")) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(random_s.uniform(0.1, 1.0))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    store = Store(wanted.store, SystemClock())
    from pipeline.service.evidence import files_of

    shelf = Shelf(store.database, files_of(wanted))
    types = frozenset({"watch.opened", "watch.cleared"})
    kept = [
        found for one in store.history.events(EventFilter(types=types), 2000) if (found := shelf.find(one.event.id))
    ]
    assert kept
    for one in kept:
        for name in one.manifest.files:
            assert shelf.file(one, name)
    recovering = Writer(
        files_of(wanted),
        shelf.manifests,
        wanted.evidence,
        SystemClock(),
        lambda: About(kept[0].bundle.model, kept[0].bundle.sizing),
    )
    recovering.recover()
    lying = {path.relative_to(folder).as_posix() for path in folder.glob("????-??-??/*/*")}
    assert lying == shelf.manifests.paths()
    store.close()
