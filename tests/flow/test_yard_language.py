"""The language of watches on the yard: with perfect answers, every event comes when plain counting says it should."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from pipeline.loop import watch_stream
from pipeline.rules import Count, Rules
from pipeline.testing import ScriptedMLLM, ScriptedSource, frame_at
from pipeline.types import WatchQuery
from samples.yard.questions.language import count_of, nearest_colour, perfect
from samples.yard.questions.truth import PERSON, VEHICLE, Condition
from samples.yard.world.facts import COLOURS, FrameFacts
from samples.yard.world.scene import Scene
from samples.yard.world.segments import sampled_times_s
from tests.flow.test_loop import build

SEEDS, SECONDS = range(800_000, 800_005), 40
GAP_S = 10
Told = tuple[str, int, object]
"""An event: its kind, the hop in which it came, and its value or the second since when."""

HOLD = WatchQuery("hold", "is there a vehicle?", rules=Rules(hold_s=3.0, update_every_s=4.0))
ABSENT = WatchQuery("absent", "is there a person?", rules=Rules(absent_s=5.0))
COUNT = WatchQuery("count", "how many people are there?", rules=Rules(count=Count(">=", 2)))
CHOICE = WatchQuery("choice", "which colour is the nearest vehicle?", rules=Rules(choice=COLOURS))


@cache
def hops(seed: int) -> tuple[tuple[FrameFacts, ...], ...]:
    """The facts of each hop's frames."""
    scene = Scene(seed, SECONDS)
    facts = [scene.look(at_s).facts for at_s in sampled_times_s(SECONDS, 2.0)]
    return tuple(tuple(one for one in facts if second <= one.time_s < second + 1) for second in range(SECONDS))


class PerfectMLLM(ScriptedMLLM):
    """An MLLM that is always right."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._hops = hops(seed)

    async def ask(self, context, queries, limit=None, aside=()):
        answers = await super().ask(context, queries, limit, aside)
        frames = self._hops[int(context.segments[-1].pts_s[-1])]
        conditions = {"hold": VEHICLE, "absent": PERSON, "count": ("person",)}
        return replace(answers, answers=tuple(perfect(one, conditions.get(one.id), frames) for one in queries))


def holds(condition: Condition, frames: Sequence[FrameFacts]) -> bool | None:
    seen = [condition.truth(frame) for frame in frames]
    return True if True in seen else None if None in seen else False


def stretches(truths: Sequence[bool | None], value: bool) -> list[tuple[list[int], int]]:
    """The seconds of each stretch in which what is known is `value`, and the second that ends it."""
    known = [second for second, truth in enumerate(truths) if truth is not None]
    found: list[tuple[list[int], int]] = []
    inside: list[int] = []
    for second in known:
        if truths[second] == value:
            inside.append(second)
        elif inside:
            found.append((inside, second))
            inside = []
    return [*found, (inside, len(truths))] if inside else found


def lasting(truths: Sequence[bool | None], value: bool, wait_s: int, every_s: int = 0) -> list[Told]:
    """The events of what has to last: it opens at the first known second that is `wait_s` after the first of seconds
    that lie no more than a gap apart, and clears where the contrary is known."""
    told: list[Told] = []
    for inside, end in stretches(truths, value):
        begin = before = inside[0]
        for second in inside:
            begin = second if second - before > GAP_S else begin
            before = second
            if second - begin >= wait_s:
                told.append(("opened", second, begin))
                told += [("updated", at, begin) for at in range(second + every_s, end, every_s or SECONDS) if every_s]
                told += [("cleared", end, end)] if end < len(truths) else []
                break
    return told


def changing(values: Sequence[str | None]) -> list[Told]:
    known = [(second, value) for second, value in enumerate(values) if value is not None]
    changes = [one for number, one in enumerate(known) if not number or known[number - 1][1] != one[1]]
    return [("updated" if number else "opened", second, value) for number, (second, value) in enumerate(changes)]


def expected(query: WatchQuery, seed: int) -> list[Told]:
    seconds = hops(seed)
    if query is HOLD:
        return lasting([holds(VEHICLE, frames) for frames in seconds], True, 3, 4)
    if query is ABSENT:
        return lasting([holds(PERSON, frames) for frames in seconds], False, 5)
    if query is COUNT:
        numbers = [count_of(("person",), frames[-1]) for frames in seconds]
        return lasting([None if number is None else number >= 2 for number in numbers], True, 0)
    return changing([nearest_colour(frames[-1]) for frames in seconds])


async def told(query: WatchQuery, seed: int) -> list[Told]:
    run, runtime = build(query, mllm=PerfectMLLM(seed))
    await watch_stream(run, ScriptedSource([frame_at(one.time_s) for frames in hops(seed) for one in frames]), runtime)
    found: list[Told] = []
    for decision in runtime.outbox.decisions:
        for event in decision.events:
            since = event.data["value"] if query is CHOICE else event.data.get("onset_s", event.data.get("cleared_s"))
            found.append((event.type.removeprefix("watch."), round(decision.resume_s) - 1, since))
    return found


@pytest.mark.parametrize("query", [HOLD, ABSENT, COUNT, CHOICE], ids=lambda query: query.id)
async def test_with_perfect_answers_every_event_comes_exactly_when_it_should(query):
    kinds: set[str] = set()
    for seed in SEEDS:
        events = await told(query, seed)
        assert events == expected(query, seed), seed
        kinds |= {kind for kind, _, _ in events}
    wanted = {"hold": {"opened", "updated", "cleared"}, "choice": {"opened", "updated"}}
    assert kinds == wanted.get(query.id, {"opened", "cleared"}), "choose other seeds: not everything happens in these"


@pytest.mark.parametrize(
    ("truths", "wanted"),
    [
        ([False, True, True, True, True, False], [("opened", 4, 1), ("cleared", 5, 5)]),
        ([True, None, None, True, None, True], [("opened", 3, 0)]),
        ([True, *[None] * 11, True, True, True, True], [("opened", 15, 12)]),
        ([True, True, False, True, True], []),
    ],
)
def test_plain_counting_is_right_where_it_can_be_seen_by_eye(truths, wanted):
    assert lasting(truths, True, 3) == wanted
