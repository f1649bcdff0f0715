"""A Ray cluster of several nodes on this machine, each a process group of its own that can be killed and frozen.

Ray listens on all addresses whatever it is told: start it in a network namespace (see `in_namespace`).
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

PORT = 26379
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "4",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # else as soon as somebody on this machine has a token
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
MARK = "RESADAPT_IN_NAMESPACE"
START_S = 60.0


def in_namespace(module, arguments):
    """Run a module in network and process namespaces of its own, if it does not run in them; True if it does now.
    Returns only there."""
    if os.environ.get(MARK):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    command = ["unshare", "-n", "-p", "-f", "--mount-proc", "--kill-child", sys.executable, "-m", module, *arguments]
    sys.exit(subprocess.run(command, check=False, env=os.environ | {MARK: "1"}).returncode)


def can_run():
    """Why it cannot be run here, or None."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        return "namespaces need root, unshare and ip (iproute2)"
    return None


class RayNodes:
    """The processes of a cluster: a head without CPUs, on which no node is run, and nodes by number."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.nodes = {}
        self._starts = 0
        self.head = self._start("head", "--head", f"--port={PORT}", "--node-ip-address=127.0.0.1", "--num-cpus=0",
                                "--include-dashboard=False", "--include-log-monitor=False")  # fmt: skip

    def start(self, number, *more):
        name = f"n{number}"
        self.nodes[name] = self._start(name, f"--address=127.0.0.1:{PORT}", f"--node-ip-address=127.0.0.{number + 10}",
                                       "--num-cpus=4", f"--node-name={name}", *more)  # fmt: skip
        return name

    def revive(self):
        """Start the nodes again whose start has failed: Ray gives up on a machine that is too busy."""
        for name, process in list(self.nodes.items()):
            if process.poll() is not None:
                self.start(int(name[1:]))

    def _start(self, name, *options):
        # A folder for each start: what another one has left keeps Ray from starting. Its sockets want short names.
        self._starts += 1
        folder = self.folder / f"{name}-{self._starts}"
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block",
                   "--object-store-memory=83886080", f"--temp-dir={folder}", "--min-worker-port=0",
                   "--max-worker-port=0", *options]  # fmt: skip
        with (self.folder / f"{name}.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | QUICK, start_new_session=True)

    def all_of(self, name):
        """Every process of a node."""
        process = psutil.Process(self.nodes[name].pid)
        return [*process.children(recursive=True), process]

    def signal(self, name, signum):
        for process in self.all_of(name):
            try:
                process.send_signal(signum)
            except psutil.NoSuchProcess:
                continue

    def kill(self, name):
        """End a node as a power cut does."""
        self.signal(name, signal.SIGSTOP)  # nobody of it notices the end of another
        self.signal(name, signal.SIGKILL)
        self.nodes.pop(name).wait()

    def close(self):
        for name in list(self.nodes):
            self.kill(name)
        for process in [*psutil.Process(self.head.pid).children(recursive=True), psutil.Process(self.head.pid)]:
            process.kill()
        self.head.wait()


def wait_for(condition, seconds=START_S, what="it"):
    until_s = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until_s:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.05)
    return found


class OwnPostgres:
    """A PostgreSQL server for one run, in a folder."""

    def __init__(self, folder: Path, port=25432):
        self.folder, self.port = folder / "pg", port
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not binaries:
            raise RuntimeError("PostgreSQL is not installed (apt-get install postgresql)")
        self.binaries = binaries[-1]
        self.folder.mkdir()
        shutil.chown(self.folder, "postgres")
        os.chmod(folder, 0o755)
        self._run(f"{self.binaries}/initdb -D {self.folder} -A trust --no-sync")
        self.start()
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def start(self):
        self._run(
            f"{self.binaries}/pg_ctl -s -w -D {self.folder} -l {self.folder}/log"
            f" -o '-p {self.port} -k {self.folder}' start"
        )

    def restart(self):
        self._run(f"{self.binaries}/pg_ctl -s -w -m immediate -D {self.folder} stop")
        self.start()

    def close(self):
        self._run(f"{self.binaries}/pg_ctl -s -w -m immediate -D {self.folder} stop")

    def _run(self, command):
        subprocess.run(["su", "postgres", "-c", command], check=True, stdout=subprocess.DEVNULL, cwd="/")
