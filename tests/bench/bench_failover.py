"""What it costs when machines die: a fleet on a Ray cluster of this machine, whose nodes are killed at random moments.

    python -m tests.bench.bench_failover --kills 20 [--nodes 4] [--streams 16] [--freezes 3] [--heads 1] [--restarts 1]
                                         [--drain] [--head-s 20] [--seed 1]

Needs root, `unshare`, `ip`, PostgreSQL and the extra `fleet`: Ray and PostgreSQL run in namespaces of their own. Each
stream is a camera of its own pace with a watch that opens and clears every ten seconds (MLLM: null); the head delivers
to a journal. After each kill (-9, of every process of a node) the seconds are measured until each of its streams has
decided a hop under another owner. `--freezes` stops a node for twice its lease and wakes it; `--heads` kills the head;
`--restarts` ends PostgreSQL at once and starts it again; `--drain` drains one node after the other; before all that
`--head-s` measures the head's CPU for so many seconds.

At the end the fleet is stopped and the store compared with the journal: `lost` are events that were decided and not
delivered, or numbers of a watch's events that are missing; `two_contents` ids with two contents; `two_owners` hops of a
stream decided twice or out of order; `missed` hops of stream time that nobody decided. `p95_s` is over all streams of
all killed and frozen nodes. The last line is JSON.
"""

import argparse
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path

import psutil
import sqlalchemy as sa
import yaml

from pipeline.delivery.tables import DELIVERY, HOP_ANSWERS, OUTBOX, STREAM_OWNER, STREAM_STATE
from tests.bench.report import p95, tell
from tests.ray_cluster import PORT, QUICK, OwnPostgres, RayNodes, can_run, in_namespace, wait_for

API = 28080
LEASE_S = 2.0
LIVE = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}
AGAIN_S = 60.0
RETURN_S = 300.0
"""How long a node may take to come back, which is not what is measured: Ray starts slowly on busy cores."""


class Run:
    NODE = ()
    """More options of a node of Ray."""
    HOP_S = 1.0

    def __init__(self, folder: Path, options: argparse.Namespace):
        self.folder, self.options = folder, options
        self.streams = [f"s{n:02d}" for n in range(options.streams)]
        self.postgres = OwnPostgres(folder)
        self.engine = sa.create_engine(
            sa.make_url(self.postgres.url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        )
        self.journal = folder / "events.jsonl"
        self.site = folder / "site.yaml"
        common = {
            "mllm": "null",
            "store": self.postgres.url,
            "sinks": {"journal": f"jsonl:{self.journal}"},
            "metrics": {"port": 0},
            "api": {"port": API, "rate_per_s": 10_000, "burst": 10_000},
            "fleet": {"lease_s": LEASE_S},
            "drain_s": 10,
        }
        self.site.write_text(yaml.safe_dump(common | self.watched()))
        self.cluster = RayNodes(folder)
        wait_for(lambda: "Ray runtime started" in (folder / "head.log").read_text(), what="Ray")
        for number in range(options.nodes):
            self.cluster.start(number, *self.NODE)
        self.serve()

    def watched(self):
        """The part of the site that says what is watched, and how."""
        return {
            "streams": {slug: LIVE | {"url": LIVE["url"] + f"&seed={n}"} for n, slug in enumerate(self.streams)},
            "watches": {"car": {"question": "is there a car?"}},
            "evidence": {"enabled": False},
        }

    def serve(self):
        with (self.folder / "serve.log").open("a") as log:
            command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "serve", "-c",
                       str(self.site), "--cluster", f"127.0.0.1:{PORT}"]  # fmt: skip
            environment = os.environ | {name: QUICK[name] for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE")}
            self.head = subprocess.Popen(command, stderr=log, stdout=log, cwd=self.folder, env=environment)

    def ask(self, path, method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{API}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def query(self, statement):
        with self.engine.connect() as connection:
            return connection.execute(statement).all()

    def owners(self):
        """Token, node and decided seconds of each stream."""
        both = STREAM_OWNER.join(STREAM_STATE, STREAM_OWNER.c.stream_id == STREAM_STATE.c.stream_id)
        columns = STREAM_OWNER.c.stream_id, STREAM_OWNER.c.token, STREAM_OWNER.c.holder, STREAM_STATE.c.resume_s
        rows = self.query(sa.select(*columns).select_from(both))
        return {row[0]: (row[1], row[2].partition(" ")[0], row[3]) for row in rows if row[0] in self.streams}

    def pictures(self):
        """Streams of which the head gives a picture, which it has from their nodes."""
        return sum(self._picture(slug) for slug in self.streams)

    def _picture(self, slug):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{API}/v1/streams/{slug}/snapshot.jpg", timeout=20) as answer:
                return answer.read(2) == b"\xff\xd8"
        except urllib.error.HTTPError as error:
            print(f"{slug}: {error.read().decode()}", file=sys.stderr)
            return False

    def all_decide(self, nodes):
        """True once every stream is decided on by one of so many nodes."""
        self.cluster.revive()
        try:
            owners = self.owners()
        except sa.exc.DBAPIError:
            return False
        held = {node for _, node, decided_s in owners.values() if node and decided_s > 0}
        return len(owners) == len(self.streams) and len(held) == nodes

    def again_s(self, before, began_s):
        """Seconds until each of some streams has decided under another owner; its first hop counts as the end of it."""
        taken, found = {}, {}
        while len(found) < len(before):
            if time.monotonic() - began_s > AGAIN_S:
                raise TimeoutError(f"streams that do not decide again: {sorted(set(before) - set(found))}")
            for slug, (token, _, decided_s) in self.owners().items():
                if slug not in before or slug in found or token <= before[slug][0]:
                    continue
                taken.setdefault(slug, max(decided_s, before[slug][2]))
                if decided_s > taken[slug]:
                    found[slug] = time.monotonic() - began_s
            time.sleep(0.02)
        return list(found.values())

    def kill(self, rng, freeze, last):
        name = rng.choice(sorted(self.cluster.nodes))
        time.sleep(rng.uniform(0.0, 2.0))
        before = {slug: one for slug, one in self.owners().items() if one[1] == name}
        began_s = time.monotonic()
        if freeze:
            self.cluster.signal(name, signal.SIGSTOP)
            seconds = self.again_s(before, began_s)
            time.sleep(max(began_s + 2 * LEASE_S - time.monotonic(), 0))
            self.cluster.signal(name, signal.SIGCONT)
        else:
            self.cluster.kill(name)
            seconds = self.again_s(before, began_s)
            if last:
                return seconds
            self.cluster.start(int(name[1:]))
        wait_for(lambda: self.all_decide(self.options.nodes), RETURN_S, "all nodes")
        return seconds

    def kill_head(self, rng):
        time.sleep(rng.uniform(0.0, 2.0))
        self.head.kill()
        self.head.wait()
        began_s, before = time.monotonic(), self.delivered()
        self.serve()
        wait_for(lambda: self.delivered() > before, 120, "events from the next head")
        return time.monotonic() - began_s

    def delivered(self):
        return len(self.journal.read_text().splitlines()) if self.journal.exists() else 0

    def restart_postgres(self, rng):
        time.sleep(rng.uniform(0.0, 2.0))
        before = self.owners()
        began_s = time.monotonic()
        self.postgres.restart()
        self.engine.dispose()
        wait_for(lambda: all(self.owners()[slug][2] > one[2] + 1 for slug, one in before.items()), 60, "hops")
        return time.monotonic() - began_s

    def drain(self):
        for name in sorted(self.cluster.nodes):
            self.ask(f"/v1/nodes/{name}/drain", "POST")
            wait_for(lambda name=name: name not in {one[1] for one in self.owners().values()}, 60, f"{name} to drain")
            self.ask(f"/v1/nodes/{name}/uncordon", "POST")
            wait_for(lambda: self.all_decide(self.options.nodes), 60, "its share")

    def head_percent(self, seconds):
        """CPU of the head, threads of Ray included, in per cent of a core while nothing happens."""
        if not seconds:
            return None
        head = psutil.Process(self.head.pid)
        before, began_s = sum(head.cpu_times()[:2]), time.monotonic()
        time.sleep(seconds)
        return round(100 * (sum(head.cpu_times()[:2]) - before) / (time.monotonic() - began_s), 2)

    def stop(self):
        """End it all: drain the nodes first, so that every decision is made, then let the head deliver what is left."""
        for name in sorted(self.cluster.nodes):
            self.ask(f"/v1/nodes/{name}/drain", "POST")
        wait_for(lambda: {one[1] for one in self.owners().values()} == {""}, 60, "all nodes to drain")
        self.head.send_signal(signal.SIGTERM)
        self.head.wait(60)

    def audit(self):
        events = self.query(sa.select(OUTBOX.c.event_id, OUTBOX.c.stream_id, OUTBOX.c.watch_id, OUTBOX.c.data))
        contents = defaultdict(set)
        for line in self.journal.read_text().splitlines():
            event = json.loads(line)
            contents[event["id"]].add(json.dumps({"data": event["data"], "type": event["type"]}, sort_keys=True))
        numbers = defaultdict(set)
        for event in events:
            numbers[event.stream_id, event.watch_id].add(json.loads(event.data)["n"])
        gaps = sum(max(ns) - min(ns) + 1 - len(ns) for ns in numbers.values())
        ends = defaultdict(list)
        rows = sa.select(HOP_ANSWERS.c.stream_id, HOP_ANSWERS.c.end_s).order_by(HOP_ANSWERS.c.seq)
        for row in self.query(rows):
            ends[row.stream_id].append(row.end_s)
        return {
            "lost": len({event.event_id for event in events} - set(contents)) + gaps,
            "two_contents": sum(len(several) > 1 for several in contents.values()),
            "two_owners": sum(b <= a for of in ends.values() for a, b in itertools.pairwise(of)),
            "missed": sum(
                max(round((b - a) / self.HOP_S) - 1, 0) for of in ends.values() for a, b in itertools.pairwise(of)
            ),
            "owed": self.query(sa.select(sa.func.count()).select_from(DELIVERY))[0][0],
            "events": len(events),
            "hops": sum(map(len, ends.values())),
        }

    def close(self):
        if self.head.poll() is None:
            self.head.kill()
        self.cluster.close()
        self.engine.dispose()
        self.postgres.close()


def main(options: argparse.Namespace) -> None:
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="rf", dir="/tmp"))
    print(f"logs in {folder}", file=sys.stderr)
    run = Run(folder, options)
    try:
        wait_for(lambda: run.all_decide(options.nodes), RETURN_S, "the fleet")
        print("all streams decide", file=sys.stderr)
        wait_for(lambda: run.pictures() == options.streams, 60, "pictures from all nodes")
        percent = run.head_percent(options.head_s)
        more = options.freezes or options.heads or options.restarts or options.drain
        kills = [run.kill(rng, False, not more and n == options.kills - 1) for n in range(options.kills)]
        freezes = [run.kill(rng, True, False) for _ in range(options.freezes)]
        heads = [run.kill_head(rng) for _ in range(options.heads)]
        restarts = [run.restart_postgres(rng) for _ in range(options.restarts)]
        if options.drain:
            run.drain()
        run.stop()
        found = run.audit()
    finally:
        run.close()
    of_kills, of_freezes = list(itertools.chain(*kills)), list(itertools.chain(*freezes))
    several = [("node killed", of_kills), ("node frozen", of_freezes), ("head killed", heads)]
    rows = [
        (what, len(seconds), statistics.median(seconds), p95(seconds), max(seconds))
        for what, seconds in [*several, ("PostgreSQL restarted", restarts)]
        if seconds
    ]
    both = of_kills + of_freezes
    tell("failover", ("what", "streams or times", "median s", "p95 s", "most s"), rows, {
        "kills": options.kills, "nodes": options.nodes, "streams": options.streams, **found,
        "pictures": options.streams,
        "head_percent": percent,
        "p95_s": round(p95(both), 3) if both else None,
        "p95_frozen_s": round(p95(of_freezes), 3) if of_freezes else None,
    })  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--freezes", type=int, default=0)
    parser.add_argument("--heads", type=int, default=0)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--head-s", type=float, default=0.0)
    parser.add_argument("--drain", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    if reason := can_run():
        parser.exit(2, f"bench_failover: {reason}\n")
    in_namespace("tests.bench.bench_failover", sys.argv[1:])
    main(chosen)
