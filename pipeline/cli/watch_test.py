"""`resadapt watch test`: questions tried on recordings, or a watch's other settings on its kept answers."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.ending import run_to_end
from pipeline.cli.options import LogLevel
from pipeline.cli.output import ScreenColumn, print_line, set_up, table
from pipeline.cli.remote import ApiKey, AsJson, Remote, Url, path_of, remote
from pipeline.cli.rules import Absent, Choices, CountRule, Hold, rule_settings
from pipeline.cli.tune_on import TuneOn
from pipeline.cli.wordings_on import compare_on
from pipeline.clock import SystemClock
from pipeline.config.site import parse_site, read_yaml
from pipeline.config.slugs import unique_slug
from pipeline.core.questions import clean_question
from pipeline.core.spans import EXAMPLES, seconds_of
from pipeline.errors import ConfigError
from pipeline.lab.backtest import BackTest, Tried, back_test, recordings_of, stream_slugs
from pipeline.lab.labels import OpenSpan, agree, check_inside, read_labels
from pipeline.lab.report import write_report
from pipeline.service.unnamed import require_mllm_or_yard

EXAMPLE = (
    'Example: resadapt watch test "is a car in view?" "is there a car?" --on recordings/ --labels labels.csv --report'
    " r.html; resadapt watch test helmet --kept 24h --set hold_s=10"
)


def try_watches(
    subjects: Annotated[list[str], typer.Argument(help="Questions, side by side; with --kept the slug of a watch.")],
    on: Annotated[Path | None, typer.Option("--on", help="A recording, or a folder of them.")] = None,
    kept: Annotated[str | None, typer.Option("--kept", help="The answers kept of this time: 90m, 24h, 7d.")] = None,
    watch: Annotated[
        str | None, typer.Option("--watch", help="With --on: compare with what this watch asks, and keep the result.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV of when it was so: file,start_s,end_s.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    mllm: Annotated[str | None, typer.Option(help="As of `resadapt run`.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A site file with defaults.")] = None,
    hold: Hold = None,
    absent: Absent = None,
    count: CountRule = None,
    choice: Choices = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the watch, such as open_at=0.8.")
    ] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
    log_level: LogLevel = "error",
) -> None:
    """Try questions on recordings as fast as this machine can, or a watch's other settings on the answers that it was
    given, without asking the MLLM. The last line is JSON with --json. With --watch the questions are compared with the
    watch's own by its labels, or those of --labels, each with the settings that suit it; `resadapt watch tune` names
    those that did better. Beside a live service name `mllm.threads` in the site: the MLLM takes all cores else."""
    rules = rule_settings(hold, absent, count, choice, None, set_)
    if (on is None) == (kept is None):
        raise ConfigError("expected --on FILE_OR_FOLDER for recordings, or --kept SPAN for the kept answers of a watch")
    if watch is not None and (on is None or report or rules):
        raise ConfigError("--watch takes --on FILE_OR_FOLDER, no --report, and no settings: the watch has its own")
    if kept is not None:
        if len(subjects) != 1 or labels or report:
            raise ConfigError("--kept takes the slug of one watch, and neither --labels nor --report")
        _try_kept(remote(url, key, as_json), subjects[0], kept, rules)
        return
    assert on is not None
    if watch is not None:
        beside = None if url or key else config
        found = compare_on(TuneOn(on, subjects, labels, mllm, beside), watch, None, url, key)
        print_line(json.dumps(found, ensure_ascii=False))
        return
    set_up(log_level, people=False)
    recordings = recordings_of(on)
    truths = read_labels(labels, list(recordings)) if labels else None
    if report and not report.parent.is_dir():
        raise ConfigError(f"--report {report} stands in no folder that is there")
    site, names = _site(subjects, recordings, read_yaml(config) if config else {}, mllm, rules)

    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="resadapt-") as scratch:
            stored = parse_site(site | {"store": f"sqlite:///{scratch}/test.db"})
            played = await back_test(stored, names, SystemClock())
        _finish(played, truths, report, as_json)

    require_mllm_or_yard(site, parse_site(site))
    run_to_end(main())


def _site(
    questions: list[str], recordings: Mapping[str, Path], raw: Mapping[str, object], mllm: str | None, rules: object
) -> tuple[dict[str, object], dict[str, str]]:
    """The mappings of a site of these recordings and questions, and the recordings' names by slug."""
    slugs = stream_slugs(list(recordings))
    watches: dict[str, object] = {}
    for number, question in enumerate(questions, 1):
        clean_question(question)
        assert isinstance(rules, Mapping)
        watches[unique_slug(question, f"watch-{number}", watches)] = {"question": question, **rules}
    site: dict[str, object] = {**raw, "watches": watches, "sinks": {}, "metrics": {"port": 0}}
    site["streams"] = {slugs[name]: {"url": str(file)} for name, file in recordings.items()}
    if mllm:
        site["mllm"] = mllm
    return site, {slug: name for name, slug in slugs.items()}


def _finish(played: BackTest, truths: Mapping[str, list[OpenSpan]] | None, report: Path | None, as_json: bool) -> None:
    if truths is not None:
        check_inside(truths, played.seconds)
        for one in played.tried:
            one.agreement = agree(one.spans, truths)
    if report:
        write_report(report, played)
    if not as_json:
        table(_COLUMNS, [_row(one) for one in played.tried])
        for name, reason in played.faults.items():
            table(("ended early", "why"), [(name, reason)])
    print(json.dumps(played.as_json(), ensure_ascii=False))  # noqa: T201 - the command's output


_COLUMNS = (
    ScreenColumn("question", 9, text=True),
    ScreenColumn("events", 8),
    ScreenColumn("opened", 7),
    ScreenColumn("precision", 4),
    ScreenColumn("recall", 5),
    ScreenColumn("F1", 6),
    ScreenColumn("delay s", 3),
)


def _row(one: Tried) -> tuple[object, ...]:
    found = one.agreement
    numbers = (found.precision, found.recall, found.f1, found.delay_p50_s) if found else (None,) * 4
    return one.question, len(one.events), one.opened, *("" if n is None else f"{n:.3f}" for n in numbers)


def _try_kept(service: Remote, slug: str, kept: str, rules: Mapping[str, object]) -> None:
    body = {"since_s": span_s(kept), "settings": dict(rules)}
    items = service.send("POST", path_of("watches", slug, "/test"), body)["items"]
    service.show(items) if service.as_json else table(KEPT_COLUMNS, [_tested(item) for item in items])


KEPT_COLUMNS = ("stream", "hops", "known", "opened as it is", "opened then", "events as it is", "events then")


def _tested(item: dict[str, Any]) -> tuple[object, ...]:
    counts = ("hops", "known", "opened_before", "opened", "events_before", "events")
    return item["stream"], *(item[name] for name in counts)


def span_s(text: str) -> int:
    """Seconds of a span such as 24h. Raises ConfigError."""
    if (seconds := seconds_of(text)) is None:
        raise ConfigError(f"--kept is {text[:40]!r}; expected a span such as {EXAMPLES}")
    return seconds
