import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.evaluate.tasks import Span
from pipeline import build
from pipeline.cli.demo_misses import HopSeen, cause, explained
from pipeline.cli.play import Played
from pipeline.cli.yard_demo import Demo, compare
from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.core.context import Context, ContextRules
from pipeline.core.hops import HopRules
from pipeline.core.state import Counts, StreamRun
from pipeline.errors import ConfigError, EngineMismatch
from pipeline.mllm.transformers.tiny import make_tiny
from pipeline.sources.base import Sampler
from pipeline.types import Event
from samples.yard.demo import Camera, LastingWatch, Miss, choose_watches, misses, score, totals
from samples.yard.questions.grammar import watch_questions
from samples.yard.questions.matching import WatchScore
from samples.yard.world.facts import FPS, FrameFacts
from samples.yard.world.segments import sampled_times_s
from tests.checkpoints import untrained_yard

GATE = next(watch for watch in watch_questions() if watch.slug == "gate-open")


@given(st.integers(1, 200), st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, 12.5, 25.0]))
def test_the_truth_is_that_of_the_frames_which_a_source_samples(frames, fps):
    sampler = Sampler(fps)
    kept = [frame / FPS for frame in range(frames) if sampler.wants(frame / FPS)]
    assert sampled_times_s(frames / FPS, fps) == kept


@given(st.integers(800_000, 899_999))
def test_two_cameras_of_test_seeds_are_yards_of_test_seeds(seed):
    one, other = Demo(seed=seed).seeds
    assert one != other
    assert seed in (one, other)
    assert all(800_000 <= each <= 899_999 for each in (one, other))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seconds": 1}, "--seconds is 1; expected 4 to 600"),
        ({"seconds": float("nan")}, "--seconds is nan"),
        ({"seed": -1}, "--seed is -1"),
        ({"budget": 0.0}, "--budget is 0"),
        ({"budget": 1.5}, "--budget is 1.5"),
    ],
)
def test_what_cannot_be_played_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        Demo(**values)


def opened(stream_id, onset_s):
    identity = f"{stream_id} {onset_s}"
    return Event(identity, "watch.opened", stream_id, datetime.now(UTC), {"onset_s": onset_s}, GATE.slug)


def camera(slug, *open_s):
    """One before which the gate is open from each of these seconds for two seconds, out of 20."""
    times_s = sampled_times_s(20.0, 2.0)
    seen = [FrameFacts(t, "day", False, any(start <= t < start + 2 for start in open_s), False) for t in times_s]
    return Camera(slug, 0, Path("none.mp4"), tuple(seen))


def played(*cameras, decided_s=20.0):
    empty = Context.empty("yard", ContextRules(30.0, 15.0))
    run = StreamRun("yard", HopRules(2.0, 1.0), empty, counts=Counts(spent=1000), decided_s=decided_s)
    return Played({one.slug: replace(run, stream_id=one.slug) for one in cameras}, wall_s=20.0, mllm_s=5.0)


def test_events_are_compared_with_what_each_camera_showed():
    cameras = (camera("a", 4.0, 12.0), camera("b", 8.0))
    events = [opened("a", 4.0), opened("a", 12.0), opened("b", 8.0)]
    outcome = compare([*events, *events], played(*cameras), cameras, (GATE,))  # a sink may see an event twice
    assert outcome.scores == (WatchScore("gate-open", False, 3, 0, 0, outcome.scores[0].delays_s),)
    assert json.loads(json.dumps(outcome.summary())) == {
        "f1": 1.0, "precision": 1.0, "recall": 1.0, "onset_delay_p50_s": 0.0, "tokens_per_s": 100.0,
        "realtime_factor": 1.0, "mllm_share": 0.25,
    }  # fmt: skip
    wrong = compare([opened("a", 4.0), opened("b", 4.0)], played(*cameras), cameras, (GATE,))
    assert (wrong.scores[0].found, wrong.scores[0].missed, wrong.scores[0].false) == (1, 2, 1)


def test_what_came_after_the_end_of_a_stopped_demo_was_not_missed():
    cameras = (camera("a", 4.0, 12.0),)
    outcome = compare([opened("a", 4.0)], played(*cameras, decided_s=8.0), cameras, (GATE,))
    assert outcome.totals.recall == 1.0
    nothing = compare([], Played({}, 0.0, 0.0), cameras, (GATE,))
    assert (nothing.totals.f1, nothing.realtime_factor) == (None, 0.0)


def hops(stream_id, *seconds, tokens=112, answered=True):
    return [HopSeen(stream_id, float(at), float(at + 1), tokens, 112, answered) for at in seconds]


@pytest.mark.parametrize(
    ("span", "late", "seen", "why"),
    [
        ((4.0, 8.0), False, hops("a", *range(20)), "unrecognised"),
        ((4.0, 8.0), False, hops("a", *range(20), tokens=20), "small"),
        ((4.0, 8.0), False, hops("a", *range(20), answered=False), "unasked"),
        ((4.0, 8.0), False, hops("b", *range(20)), "unasked"),
        ((4.2, 4.9), False, hops("a", *range(20)), "brief"),
        ((4.0, 8.0), True, hops("a", *range(20)), "late"),
    ],
)
def test_why_an_event_was_missed_is_found_in_what_was_shown(span, late, seen, why):
    since_s, until_s = span
    assert cause(Miss("a", Span(since_s, since_s, until_s), late), seen, needed=2) == why


def test_the_misses_are_those_that_the_score_counts():
    cameras = (camera("a", 4.0, 12.0), camera("b", 8.0))
    outcome = compare([opened("a", 4.0), opened("b", 9.5)], played(*cameras), cameras, (GATE,))
    assert [(miss.stream_id, miss.span.since_s, miss.late) for miss in outcome.missed] == [
        ("a", 12.0, False), ("b", 8.0, True),
    ]  # fmt: skip
    assert len(outcome.missed) == outcome.scores[0].missed
    assert explained(outcome.missed, hops("a", *range(20)), 2) == [
        "1 shown at native size, and not recognised by the MLLM", "1 noticed, but more than a second late",
    ]  # fmt: skip


def test_the_watches_of_a_demo_have_events_where_there_are_any():
    cameras = (camera("a", 4.0), camera("b"))
    chosen = choose_watches(cameras, 800001, 6)
    assert len(set(chosen)) == 6
    happens = [score(watch, cameras, {}, {"a": 20.0, "b": 20.0}).missed > 0 for watch in chosen]
    assert happens == sorted(happens, reverse=True)
    assert happens[0]


def test_a_watch_of_what_lasts_is_scored_by_what_lasts():
    cameras = (camera("a", 2.0, 4.0, 6.0), camera("b", 8.0))  # open from 2 to 8 s, and for 2 s only
    until_s = {"a": 20.0, "b": 20.0}
    assert isinstance(choose_watches(cameras, 800001, 6)[0], LastingWatch)
    watch = LastingWatch("gate-open-for-3s", "coarse", GATE.condition)
    assert score(watch, cameras, {}, until_s).missed == 1
    found = score(watch, cameras, {"a": [2.0]}, until_s)
    assert (found.found, found.missed, found.false) == (1, 0, 0)
    brief = score(watch, cameras, {"b": [8.0]}, until_s)
    assert (brief.found, brief.missed, brief.false) == (0, 1, 1)
    assert misses(watch, cameras, {"a": [2.0]}, until_s) == ()


def test_totals_count_events_not_watches():
    scores = [WatchScore("a", False, 8, 0, 2, (0.5,)), WatchScore("b", True, 0, 2, 0), WatchScore("c", True, 0, 0, 0)]
    found = totals(scores)
    assert (found.f1, found.precision, found.recall, found.onset_delay_p50_s) == (0.8, 0.8, 0.8, 0.5)


async def test_a_site_that_names_no_mllm_gets_the_yards(monkeypatch):
    monkeypatch.setattr(build, "YARD", untrained_yard())
    mllm = build.build_mllm(parse_site({}).mllm, SystemClock())
    await mllm.start()
    assert (mllm.info.name, mllm.info.family, mllm.info.meaningful) == ("yard", "qwen3_vl", True)
    await mllm.close()


def test_the_yards_mllm_without_weights_is_refused_with_how_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "YARD", tmp_path / "mllm")
    with pytest.raises(ConfigError, match=r"no weights in .*mllm; make them .* python -m samples\.yard\.train"):
        build.build_mllm(parse_site({}).mllm, SystemClock())


def test_an_empty_mllm_is_not_taken_for_the_default():
    with pytest.raises(ConfigError, match="mllm is empty"):
        parse_site({"mllm": None})


def truncated(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def foreign(folder):
    (folder / "config.json").write_text('{"model_type": "llava"}')


def incomplete(folder):
    (folder / "model.safetensors").write_bytes((make_tiny(folder / "other") / "model.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (truncated, EngineMismatch, r"model\.safetensors is damaged"),
        (foreign, ConfigError, "family 'llava'"),
        (incomplete, EngineMismatch, "the weights in .* lack|do not load"),
    ],
)
async def test_a_spoilt_checkpoint_is_refused_by_name(monkeypatch, tmp_path, spoil, error, said):
    for file in untrained_yard().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spoil(tmp_path)
    monkeypatch.setattr(build, "YARD", tmp_path)
    mllm = build.build_mllm(parse_site({}).mllm, SystemClock())
    with pytest.raises(error, match=said):
        await mllm.start()
    await mllm.close()
