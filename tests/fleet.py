"""A fleet on this machine without Ray: each node is a process of its own, which can be killed and frozen.

As a program (`python -m tests.fleet`) it is a node: its terms come as JSON on stdin, SIGTERM lets it hand over and end.
With arguments (SITE FOLDER NAME...) it is a head, whose nodes of these names it starts, or finds running where their
process ids lie in the folder already.
"""

import asyncio
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.api.node_pictures import offer_pictures
from pipeline.clock import SystemClock
from pipeline.fleet.head import FleetHead, ShardLost, ShardRefused
from pipeline.fleet.shard import Shard
from pipeline.fleet.terms import Machine, ShardTerms
from pipeline.logs import set_up_logs

TERMS = TypeAdapter(ShardTerms)


class ProcessCluster:
    """Machines of this one, by name; `gone` ones are not there any more. `versions` are those that nodes say they run,
    where they are others; `logs` is a folder for what they log."""

    def __init__(self, logs, *names, capacity=8.0, tags=None, versions=None):
        self.logs = logs
        self.machines_here = [Machine(name, capacity, tags=frozenset((tags or {}).get(name, ()))) for name in names]
        self.processes = {}
        self.versions = versions or {}
        self.gone = set()

    def machines(self):
        return [one for one in self.machines_here if one.name not in self.gone]

    async def run(self, terms):
        name = terms.machine.name
        if name in self.gone:
            raise ShardLost(f"machine {name} is gone")
        terms = replace(terms, version=self.versions.get(name, terms.version))
        with open(self.logs / f"{name}.log", "a") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.fleet", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
        self.processes[name] = process
        (self.logs / f"{name}.pid").write_text(str(process.pid))
        out, _ = await process.communicate(json.dumps(TERMS.dump_python(terms, mode="json")).encode())
        how, _, why = out.decode().strip().partition(" ")
        if how == "refused":
            raise ShardRefused(why, self.versions.get(name, ""))
        if how != "ended":
            raise ShardLost(f"exit code {process.returncode} {why}")
        return why

    async def reload(self, terms):
        raise ShardLost("it is not reloaded here")

    async def end(self, machine):
        if (process := self.processes.get(machine)) and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()

    def signal(self, name, signum):
        self.processes[name].send_signal(signum)

    async def close(self):
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()


class RunningCluster:
    """Machines of another cluster whose nodes run already, and go on."""

    def __init__(self, machines):
        self.machines = machines

    async def run(self, terms):
        await asyncio.Event().wait()


class CutOffCluster(RunningCluster):
    """Machines whose nodes run already and cannot be reached."""

    async def run(self, terms):
        raise ShardLost("no route to it")

    async def reload(self, terms):
        raise ShardLost("no route to it")


async def head(path, folder, names):
    started = ProcessCluster(folder, *names)
    found = all((folder / f"{name}.pid").exists() for name in names)
    leading = FleetHead(path, SystemClock(), RunningCluster(started.machines) if found else started)
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    async with leading.reconciler:
        leading.begin()
        await ending.wait()
        await leading.close(end_nodes=False)


async def node(terms):
    # All streams cost alike: what is measured on busy cores would decide which of them move.
    shard = Shard(terms, SystemClock(), offer_pictures, cpu_s=lambda: 0.0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: asyncio.create_task(shard.end()))
    return await shard.run()


def main():
    from pipeline.errors import ConfigError, ResadaptError

    set_up_logs("info", people=False)
    if len(sys.argv) > 1:
        path, folder, *names = sys.argv[1:]
        asyncio.run(head(Path(path), Path(folder), names))
        return
    try:
        print("ended", asyncio.run(node(TERMS.validate_json(sys.stdin.read()))))
    except ConfigError as error:
        print("refused", error)
    except ResadaptError as error:
        print("lost", error)


if __name__ == "__main__":
    main()
