"""Serve two cameras from one site file for some seconds, then drain. See README.md beside this file."""

import asyncio
import os
import signal
import sys
import tempfile
import urllib.request
from pathlib import Path

SITE = Path(__file__).with_name("site.yaml")
READY = "http://127.0.0.1:8080/health/ready"


async def serve(seconds: float) -> int:
    """Run `resadapt serve` as an operator would: start, work once it is ready, SIGTERM, wait for the drain."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "serve", "--config", str(SITE)]
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=os.environ | {"COLUMNS": "120"})
        while process.returncode is None and not await asyncio.to_thread(ready):
            await asyncio.sleep(0.2)
        await asyncio.wait([asyncio.create_task(process.wait())], timeout=seconds)
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        status = await process.wait()
        journal = Path(folder) / "events.jsonl"
        print(journal.read_text() if journal.exists() else "", end="")
    return status


def ready() -> bool:
    """True once the service works: its MLLM, its store and its sinks are there."""
    try:
        with urllib.request.urlopen(READY, timeout=2):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)))
