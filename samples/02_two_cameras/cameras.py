"""Serve two cameras from one site file for some seconds, then drain. See README.md beside this file."""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

SITE = Path(__file__).with_name("site.yaml")


async def serve(seconds: float) -> int:
    """`resadapt serve` as an operator would run it: start, let it work, SIGTERM, wait for the drain."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "serve", "--config", str(SITE)]
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=os.environ | {"COLUMNS": "120"})
        await asyncio.wait([asyncio.create_task(process.wait())], timeout=seconds)
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        status = await process.wait()
        journal = Path(folder) / "events.jsonl"
        print(
            journal.read_text() if journal.exists() else f"{seconds:g} s were too short to start; give it more\n",
            end="",
        )
    return status


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)))
