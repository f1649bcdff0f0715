"""Events of durations, absences, counts and choices with the yard's MLLM: `python -m samples.yard.card.language`.

Both what the MLLM answers and what a perfect model would are judged by the same rules; an event is found if one of the
same watch (and value) began within a second of it. A hop whose truth is undecided is unknown to both. With `--cache`, a
stopped run goes on where it was.
"""

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from allocator_engine.evaluate.tasks import f1, parse_seeds
from allocator_engine.fit import FitRules
from pipeline.build import YARD
from pipeline.clock import SystemClock
from pipeline.config.mllm import YardConfig
from pipeline.core.context import Context
from pipeline.lab.exam import HOPS, TrialRuntime, as_hops, play
from pipeline.lab.kept import KeptSeries, WouldBeEvent, rejudge
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM
from pipeline.mllm.transformers.backend import TransformersMLLM
from pipeline.rules import Count, Rules
from pipeline.types import Answer, Answers, WatchQuery
from samples.yard.card.evaluate import hashes
from samples.yard.card.replay import SETTINGS, Scaled, pocket_of
from samples.yard.card.score import interval
from samples.yard.episodes.clips import film
from samples.yard.questions.language import perfect
from samples.yard.questions.matching import CLEAR_AT, CONFIRM, OPEN_AT, WatchScore
from samples.yard.questions.truth import GATE_OPEN, PERSON, VEHICLE, Condition
from samples.yard.questions.watches import watch_questions
from samples.yard.questions.wordings import COLOUR, COUNT
from samples.yard.world.facts import COLOURS, HEIGHT, VEHICLES, WIDTH, Kind

WITHIN_S = 1.0
"""Seconds between the onsets of two events that are taken for one."""

About = Condition | Sequence[Kind] | None
_SCORES = TypeAdapter(list[WatchScore])


def watches() -> list[tuple[WatchQuery, About]]:
    """The watches of the language, and what each is about."""
    texts = {watch.condition: watch.text for watch in watch_questions()}
    people, vehicles = (COUNT[0][0].format(p=word) for word in ("people", "vehicles"))
    two = Rules(count=Count(">=", 2))
    rules: list[tuple[str, str, Rules, About]] = [
        ("duration: gate open for 3 s", texts[GATE_OPEN], Rules(hold_s=3.0), GATE_OPEN),
        ("duration: vehicle for 3 s", texts[VEHICLE], Rules(hold_s=3.0), VEHICLE),
        ("absence: no person for 5 s", texts[PERSON], Rules(absent_s=5.0), PERSON),
        ("absence: no vehicle for 5 s", texts[VEHICLE], Rules(absent_s=5.0), VEHICLE),
        ("count: two people or more", people, two, ("person",)),
        ("count: two vehicles or more", vehicles, two, VEHICLES),
        (
            "choice: colour of the nearest vehicle",
            COLOUR[0][0].format(n="nearest vehicle"),
            Rules(choice=COLOURS),
            None,
        ),
    ]
    return [
        (WatchQuery(name, text, OPEN_AT, CLEAR_AT, CONFIRM, rules=rule), about) for name, text, rule, about in rules
    ]


@dataclass(slots=True)
class _SaidByHop:
    """The answers of an episode by question, hop by hop: watches that ask the same are asked once."""

    watches: Sequence[WatchQuery]
    hops: list[dict[str, Answer]] = field(default_factory=list)

    async def examine(self, number: int, context: Context, answers: Answers) -> None:
        """See Exam."""
        questions = {query.id: query.question for query in self.watches}
        self.hops.append({questions[one.watch_id]: one for one in answers.answers})


async def replay(seed: int, mllm: MLLM) -> list[WatchScore]:
    """Show the episode of a seed at native size, and compare the events of each watch with those of perfect answers."""
    shown, asked = film(seed), watches()
    exam, rules = _SaidByHop([query for query, _ in asked]), FitRules(mllm.info.grid, 2)
    native = mllm.info.grid.tokens(HEIGHT, WIDTH)
    pocket = pocket_of(SETTINGS["native"], native / 2)
    runtime = TrialRuntime(SystemClock(), rules, Metrics())
    await play(as_hops(shown.hops), HOPS, exam, Scaled(rules, 1.0), pocket, mllm, runtime)
    scores = []
    for query, about in asked:
        truths = [perfect(query, about, frames) for frames in shown.facts]
        said = [hop[query.question] for hop in exam.hops]
        scores.append(compare(query, truths, said))
    return scores


def compare(query: WatchQuery, truths: Sequence[Answer], said: Sequence[Answer]) -> WatchScore:
    """The events of a watch by what was said against those by the truth."""
    fair = [one if truth.verdict != "unknown" else truth for one, truth in zip(said, truths, strict=True)]
    wanted, events = (_events(query, answers) for answers in (truths, fair))
    found = 0
    for event in wanted:
        match = next((one for one in events if _same(one, event)), None)
        if match:
            events.remove(match)
            found += 1
    return WatchScore(query.id, False, found, len(wanted) - found, len(events))


def _events(query: WatchQuery, answers: Sequence[Answer]) -> list[WouldBeEvent]:
    start_s = np.arange(len(answers), dtype=float)
    score, mass = (np.array([getattr(one, name) for one in answers]) for name in ("score", "mass"))
    series = KeptSeries(start_s, start_s, score, mass, tuple(one.value for one in answers))
    return [one for one in rejudge(series, query) if one.kind != "watch.cleared"]


def _same(one: WouldBeEvent, other: WouldBeEvent) -> bool:
    near = abs(one.since_s - other.since_s) <= WITHIN_S
    return near and one.ruling.numbers.get("value") == other.ruling.numbers.get("value")


def _value(scores: Sequence[WatchScore]) -> float:
    return float(f1(scores).value)


async def replayed(seeds: Sequence[int], threads: int = 1, cache: Path | None = None) -> list[list[WatchScore]]:
    """The scores of each episode, from the cache where it holds those of the same hashes."""
    mllm = TransformersMLLM(YARD, YardConfig(threads=threads, max_cache_tokens=1_000_000))
    await mllm.start()
    try:
        return [await _kept(seed, mllm, cache) for seed in seeds]
    finally:
        await mllm.close()


async def _kept(seed: int, mllm: MLLM, cache: Path | None) -> list[WatchScore]:
    if cache is None:
        return await replay(seed, mllm)
    file = cache / f"language-{'-'.join(hashes(YARD).values())}-{seed}.json"
    if not file.exists():
        scores = await replay(seed, mllm)
        cache.mkdir(parents=True, exist_ok=True)
        made = file.with_suffix(".part")
        made.write_bytes(_SCORES.dump_json(scores))
        made.replace(file)
        print(f"{seed}: {len(scores)} watches", file=sys.stderr, flush=True)
    return _SCORES.validate_json(file.read_bytes())


def measure(episodes: Sequence[Sequence[WatchScore]]) -> dict[str, dict[str, float]]:
    """By watch, and of all: F1 in per cent with its interval over episodes, and the number of true events."""
    figures = {}
    for name in [*(query.id for query, _ in watches()), "all of them"]:
        each = [[one for one in scores if name in (one.watch, "all of them")] for scores in episodes]
        whole = [one for scores in each for one in scores]
        low, high = interval(each, _value)
        figures[name] = {
            "f1": round(100 * _value(whole), 1),
            "lo": round(100 * low, 1),
            "hi": round(100 * high, 1),
            "events": sum(one.found + one.missed for one in whole),
            "false": sum(one.false for one in whole),
        }
    return figures


def main() -> None:
    """The command line: a table, and as the last line JSON."""
    parser = argparse.ArgumentParser(prog="python -m samples.yard.card.language", description=__doc__)
    parser.add_argument("--seeds", default="800000:800012", help="A:B, from A up to B without B")
    parser.add_argument("--cache", type=Path, help="folder that keeps the scores of episodes")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)
    figures = measure(asyncio.run(replayed(parse_seeds(given.seeds), given.threads, given.cache)))
    print("| watch | F1 | events | false |\n|---|---|---|---|")
    for name, one in figures.items():
        print(f"| {name} | {one['f1']} [{one['lo']}, {one['hi']}] | {one['events']} | {one['false']} |")
    print(json.dumps({"seeds": given.seeds, "hashes": hashes(YARD), "watches": figures}))


if __name__ == "__main__":
    main()
