"""What-if on a day of kept answers: `python -m tests.bench.bench_kept`."""

import json
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import numpy as np

from pipeline.core.outcome import Decision, HopRecord
from pipeline.delivery.store import Store
from pipeline.lab.what_if import what_if
from pipeline.rules import Rules
from pipeline.testing import ManualClock
from pipeline.types import Answer, WatchQuery

WATCHES, HOURS = 20, 24


def fill(store: Store, clock: ManualClock, hours: float) -> None:
    """A stream's hops of a second each, whose watches are busy about a tenth of the time."""
    rng, seconds = np.random.default_rng(3), int(hours * 3600)
    busy = (rng.random((WATCHES, seconds // 30 + 1)) < 0.1).repeat(30, axis=1)
    score = np.clip(np.where(busy[:, :seconds], 0.9, 0.05) + rng.normal(0, 0.12, (WATCHES, seconds)), 0, 1)
    began = clock.now()
    for first in range(0, seconds, 1000):
        batch = []
        for second in range(first, min(first + 1000, seconds)):
            answers = tuple(Answer(f"w{n}", float(score[n, second]), 0.98) for n in range(WATCHES))
            at = began + timedelta(seconds=second)
            frames = ((second + 0.0, 0.25), (second + 0.5, 0.25))
            record = HopRecord(float(second), second + 1.0, 400, 390, 390, 0, None, frames, answers, at)
            batch.append(Decision("gate", "{}", (), second + 1.0, record))
        store.commit(batch)
        clock.advance(1000.0)


def main() -> None:
    hours = float(sys.argv[1]) if len(sys.argv) > 1 else HOURS
    with tempfile.TemporaryDirectory() as folder:
        clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        store = Store(f"sqlite:///{Path(folder)}/kept.db", clock)
        fill(store, clock, hours)
        found = {}
        for name, rules in (
            ("thresholds", Rules()),
            ("hold_s", Rules(hold_s=10.0)),
            ("absent_s", Rules(absent_s=600.0)),
        ):
            queries = [WatchQuery(f"w{n}", "is it so?", confirm=(2, 3)) for n in range(WATCHES)]
            pairs = [(query, replace(query, open_at=0.8, rules=rules)) for query in queries]
            began_s = perf_counter()
            results = what_if(store.history, pairs, clock.now(), (hours + 1) * 3600)
            found[name] = {
                "seconds": round(perf_counter() - began_s, 2),
                "events": sum(len(one.after) for one in results),
            }
        store.close()
    print(json.dumps({"hours": hours, "watches": WATCHES, **found}))


if __name__ == "__main__":
    main()
