"""The demo's report: the events of each watch with pictures, and its scores over time, as of a back-test."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.cli.demo_misses import HopLog
from pipeline.core.outcome import Outcome
from pipeline.lab.backtest import BackTest, Collector, Tried
from pipeline.lab.report import FigureTable, write_report
from pipeline.types import Event
from samples.yard.demo import Camera
from samples.yard.questions.grammar import YardWatch

REPORT = Path("resadapt-demo.html")
"""The report's file, in the working folder."""


class DemoLog(HopLog):
    """The hops of a demo, and what its watches said in them."""

    def __init__(self, cameras: Sequence[Camera], watches: Sequence[YardWatch]) -> None:
        super().__init__()
        self.tried = {watch.slug: Tried(watch.slug, f"{watch.slug}: {watch.text}") for watch in watches}
        self.collector = Collector(self.tried, {camera.slug: camera.slug for camera in cameras})

    def add(self, outcome: Outcome, events: Sequence[Event]) -> None:
        """See `loop.Observe`."""
        super().add(outcome, events)
        self.collector.observe(outcome, events)


def write_demo_report(
    path: Path, log: DemoLog, seconds: Mapping[str, float], wall_s: float, tokens: int, figures: FigureTable
) -> None:
    """Write the report. Raises ConfigError where it cannot be written."""
    log.collector.close(seconds)
    played = BackTest(seconds, {}, wall_s, tokens, list(log.tried.values()))
    write_report(path, played, "The demo: what its watches saw", figures)
