"""A fleet on this machine without Ray: each node is a process of its own, which can be killed and frozen.

As a program (`python -m tests.fleet`) it is a node: its terms come as JSON on stdin, SIGTERM lets it hand over and end.
"""

import asyncio
import json
import signal
import sys
from dataclasses import replace

from pydantic import TypeAdapter

from pipeline.api.node_pictures import offer_pictures
from pipeline.clock import SystemClock
from pipeline.fleet.head import ShardLost, ShardRefused
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


async def node(terms):
    shard = Shard(terms, SystemClock(), offer_pictures)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: asyncio.create_task(shard.end()))
    return await shard.run()


def main():
    from pipeline.errors import ConfigError, ResadaptError

    set_up_logs("info", people=False)
    try:
        print("ended", asyncio.run(node(TERMS.validate_json(sys.stdin.read()))))
    except ConfigError as error:
        print("refused", error)
    except ResadaptError as error:
        print("lost", error)


if __name__ == "__main__":
    main()
