import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samples.yard.questions.grammar import (
    CARD_FAMILY,
    KINDS,
    Question,
    ask,
    grade,
    holds,
    majority,
    plate_watch,
    vocabulary,
    watch_intervals,
    watch_questions,
    watches_for,
    wordings,
)
from samples.yard.questions.truth import GATE_OPEN, PERSON, all_of, any_of, beginnings, only_run, onset
from samples.yard.world.facts import GLYPHS, VEHICLES, FrameFacts, Thing
from tests.unit.yard_facts import clip, episodes, frame, thing

truths = st.sampled_from([True, False, None])
seeds = st.integers(0, 10_000)
WATCHES = {watch.slug: watch for watch in watch_questions()}
DECIDED = tuple(kind for kind in KINDS if kind != "unknown")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def only(kind: str, frames: list[FrameFacts], **options) -> Question | None:
    questions = ask(frames, rng(), kinds=[kind], **options)
    return questions[0] if questions else None


def answer(kind: str, *frames: FrameFacts) -> str | None:
    question = only(kind, list(frames))
    return question.answer if question else None


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


@given(st.lists(truths))
def test_or_and_and_are_dual(values):
    opposite = [None if value is None else not value for value in values]
    either = any_of(opposite)
    assert all_of(values) is (None if either is None else not either)


@settings(max_examples=60, deadline=None)
@given(episodes(), seeds, st.booleans())
def test_questions_are_distinct_and_their_answers_well_formed(frames, seed, held_out):
    questions = ask(frames, rng(seed), count=6, held_out=held_out)
    assert len({question.text for question in questions}) == len(questions) <= 6
    for question in questions:
        assert question.kind in KINDS
        assert question.text == " ".join(question.text.split())
        assert re.fullmatch(r"[a-z]+|[0-4]|[A-Z0-9]{2,3}|\d+\.\d to \d+\.\d", question.answer), question
        assert question.pixels >= 0
        assert grade(question, question.answer) == 1.0


@settings(max_examples=40, deadline=None)
@given(episodes(), seeds)
def test_the_same_seed_asks_the_same(frames, seed):
    assert ask(frames, rng(seed), count=5) == ask(frames, rng(seed), count=5)


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from(sorted(WATCHES)), st.floats(0.5, 900))
def test_now_does_not_depend_on_when_nor_on_the_past(frames, slug, shift_s):
    watch = WATCHES[slug]
    later = [replace(each, time_s=each.time_s + shift_s) for each in frames]
    recent = [each for each in frames if each.time_s > frames[-1].time_s - 1.0]
    assert holds(watch, frames) is holds(watch, recent)
    assert holds(watch, later) is holds(watch, frames)


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from(sorted(WATCHES)))
def test_intervals_are_ordered_apart_and_cover_the_frames_that_hold(frames, slug):
    watch = WATCHES[slug]
    intervals = watch_intervals(frames, watch)
    for interval in intervals:
        assert interval.start_s < interval.end_s or len(frames) == 1
    for before, after in pairwise(intervals):
        assert before.end_s <= after.start_s
    for each in frames:
        if watch.condition.truth(each):
            assert any(i.start_s <= each.time_s and (each.time_s < i.end_s or len(frames) == 1) for i in intervals)
    wide = watch_intervals(frames, watch, undecided=True)
    for interval in intervals:
        assert any(w.start_s <= interval.start_s and interval.end_s <= w.end_s for w in wide)


@settings(max_examples=40, deadline=None)
@given(episodes())
def test_truth_by_question_is_that_of_each_watch(frames):
    table = watch_intervals(frames)
    assert {watch.text for watch in WATCHES.values()} <= set(table)
    assert all(table[watch.text] == watch_intervals(frames, watch) for watch in WATCHES.values())


@settings(max_examples=60, deadline=None)
@given(episodes(min_frames=4), seeds)
def test_grounding_names_the_first_and_last_frame_of_an_interval(frames, seed):
    for question in ask(frames, rng(seed), kinds=["interval"], count=3):
        start, end = question.answer.split(" to ")
        shown = [f"{each.time_s:.1f}" for each in frames]
        assert shown.index(start) < shown.index(end)


CRISP: dict[str, Callable[[Thing], bool]] = {
    "dog_now": lambda each: each.kind == "dog" and each.visible,
    "smoke_now": lambda each: each.kind == "smoke" and each.visible,
    "bag_left_now": lambda each: each.kind == "bag" and each.visible,
    "person_far_now": lambda each: each.far and each.visible,
    "person_bare_now": lambda each: each.bare is True,
    "person_helmet_now": lambda each: each.bare is False,
    "plate_any_now": lambda each: each.legible is not None,
    "vehicle_now": lambda each: each.kind in VEHICLES and each.visible,
    "person_now": lambda each: each.kind == "person" and each.visible,
}


@settings(max_examples=60, deadline=None)
@given(episodes(), st.sampled_from(sorted(CRISP)))
def test_what_is_asked_is_as_the_facts_themselves_say(frames, kind):
    for question in ask(frames, rng(), kinds=[kind]):
        newest = [each for each in frames if each.time_s > frames[-1].time_s - 1.0]
        assert question.answer == ("yes" if any(CRISP[kind](t) for each in newest for t in each.things) else "no")


FLIPS = [
    ("gate_open_now", frame(gate_open=True), frame(gate_open=False)),
    ("gate_closed_now", frame(gate_open=False), frame(gate_open=True)),
    ("barrier_up_now", frame(barrier_up=True), frame(barrier_up=False)),
    ("barrier_down_now", frame(barrier_up=False), frame(barrier_up=True)),
    ("vehicle_now", frame(0, thing("van")), frame(0, thing("person"))),
    ("person_now", frame(0, thing("person")), frame(0, thing("car"))),
    ("person_small_now", frame(0, thing("person", height_px=26.0)), frame(0, thing("person", contrast=2.0))),
    ("person_far_now", frame(0, thing("person", height_px=26.0)), frame(0, thing("person"))),
    ("person_bare_now", frame(0, thing("person", helmet=False)), frame(0, thing("person", helmet=True))),
    ("person_helmet_now", frame(0, thing("person", helmet=True)), frame(0, thing("person", helmet=False))),
    ("helmet_nearest_now", frame(0, thing("person", helmet=True)), frame(0, thing("person", helmet=False))),
    ("person_vest_now", frame(0, thing("person", vest=True)), frame(0, thing("person", vest=False))),
    ("person_carrying_now", frame(0, thing("person", bag=True)), frame(0, thing("person", bag=False))),
    ("bag_left_now", frame(0, thing("bag")), frame(0, thing("person", bag=True))),
    ("dog_now", frame(0, thing("dog")), frame(0, thing("dog", fraction=0.1))),
    ("smoke_now", frame(0, thing("smoke")), frame()),
    ("plate_any_now", frame(0, thing("car", plate_px=12.0)), frame(0, thing("car", plate_px=6.0))),
    ("rain_now", replace(frame(), rain=True), frame()),
]


@pytest.mark.parametrize(("kind", "true", "false"), FLIPS, ids=[kind for kind, *_ in FLIPS])
def test_the_decisive_fact_decides(kind, true, false):
    assert (answer(kind, true), answer(kind, false)) == ("yes", "no")


BORDERLINE = [
    ("gate_open_now", frame(gate_open=None)),
    ("dog_now", frame(0, thing("dog", fraction=0.5))),
    ("dog_now", frame(0, thing("dog", contrast=15.0))),
    ("dog_now", frame(0, thing("dog", height_px=9.0))),
    ("person_now", frame(0, thing("person", height_px=26.0))),
    ("person_far_now", frame(0, thing("person", height_px=36.0))),
    ("person_bare_now", frame(0, thing("person", helmet=False, head_px=6.2))),
    ("person_carrying_now", frame(0, thing("person", bag=True, height_px=26.0))),
    ("plate_read_now", frame(0, thing("car", plate_px=9.0))),
    ("count_people_now", frame(0, thing("person"), thing("person", fraction=0.5))),
    ("colour_near_now", frame(0, thing("car"), thing("van", 2, colour="blue"))),
]


@pytest.mark.parametrize(("kind", "undecided"), BORDERLINE)
def test_the_undecided_is_not_asked(kind, undecided):
    assert answer(kind, undecided) is None


def test_undecided_evidence_beside_certain_evidence_is_no_matter():
    assert answer("dog_now", frame(0, thing("dog", fraction=0.5), thing("dog", 2))) == "yes"


def test_far_people_never_count_as_bare():
    assert answer("person_bare_now", frame(0, thing("person", helmet=False, height_px=26.0, head_px=4.0))) == "no"


def test_attributes_and_counts_are_those_of_the_newest_frame():
    far_red = thing("car", colour="red", height_px=30.0, box=(10, 80, 60, 30))
    near_blue = thing("truck", 2, colour="blue", height_px=90.0, box=(200, 120, 120, 90))
    frames = [frame(0.0, thing("person")), frame(1.5, far_red, near_blue)]
    assert answer("colour_near_now", *frames) == "blue"
    assert answer("kind_near_now", *frames) == "truck"
    assert answer("count_people_now", *frames) == "0"
    assert answer("count_vehicles_now", *frames) == "2"
    assert answer("count_people_now", frame(0, *(thing("person", each) for each in range(1, 7)))) == "4"


def test_the_plate_is_read_where_only_one_can_be():
    legible, other = thing("car", plate_px=12.0), thing("van", 2, plate="Z9", plate_px=12.0)
    assert answer("plate_read_now", frame(0, legible)) == "A7K"
    assert answer("plate_read_now", frame(0, legible, replace(other, plate_px=0.0))) == "A7K"
    assert answer("plate_read_now", frame(0, legible, other)) is None


def test_near_misses_are_asked_about():
    frames = [frame(0, thing("car", plate_px=12.0))]
    kinds = ["plate_text_now", "vehicle_painted_now"]
    questions = [question for seed in range(60) for question in ask(frames, rng(seed), kinds=kinds)]
    denied = [question.text.casefold() for question in questions if question.answer == "no"]
    assert any(re.search(r"red (van|truck)", text) for text in denied)
    assert any(re.search(r"(blue|white|black|yellow|green) car", text) for text in denied)
    assert any(re.search(r"plate (\wek|a\wk|a7\w)\b", text) for text in denied)


def test_order_and_counts_over_time():
    frames = clip(20, lambda index: [thing("dog")] * (4 <= index < 8) + [thing("truck", 2)] * (10 <= index < 14))
    assert answer("first", *frames) == "dog"
    moving = [replace(each, gate_open=index % 6 >= 3) for index, each in enumerate(frames)]
    assert answer("times_gate", *moving) == "3"
    yes, no = (
        next(q for seed in range(40) for q in ask(frames, rng(seed), kinds=["before"]) if q.answer == value)
        for value in ("yes", "no")
    )
    assert yes.text.casefold().index("dog") < yes.text.casefold().index("truck")
    assert no.text.casefold().index("truck") < no.text.casefold().index("dog")


def test_what_may_have_begun_before_has_no_onset_and_what_may_be_hidden_no_count():
    assert onset(PERSON, clip(6, lambda index: [thing("person")])) is None
    states = [False, None, None, None, None, None, False]
    assert beginnings(GATE_OPEN, [frame(0.5 * i, gate_open=state) for i, state in enumerate(states)]) is None
    assert beginnings(GATE_OPEN, [frame(0.5 * i, gate_open=state) for i, state in enumerate([False, None, True])]) == 1


def test_an_interval_bridges_short_gaps_only_and_must_be_the_only_one():
    def shown(pattern: str) -> list[FrameFacts]:
        return clip(len(pattern), lambda index: [thing("person")] * (pattern[index] == "x"))

    question = only("interval", shown("..xxx..."))
    assert question is not None
    assert question.answer == "1.0 to 2.0"
    assert only("interval", shown(".xx..xx.")) is None
    assert only("interval", shown("...x....")) is None
    assert only_run(PERSON, shown("xxxxxxxx")) is None
    flicker = [frame(0.25 * i, *[thing("person")] * (c == "x")) for i, c in enumerate("..xx.xx..")]
    assert len(watch_intervals(flicker, WATCHES["person"])) == 1


def test_absence_is_the_opposite_of_ever():
    empty, visited = clip(4, lambda index: []), clip(4, lambda index: [thing("person")] * (index == 2))
    assert [answer(kind, *empty) for kind in ("ever_person", "nobody")] == ["no", "yes"]
    assert [answer(kind, *visited) for kind in ("ever_person", "nobody")] == ["yes", "no"]


def test_at_a_time_is_said_of_a_shown_frame():
    frames = clip(9, lambda index: [thing("person")] * (index == 5))
    asked = {
        only_one.text: only_one.answer for seed in range(80) for only_one in ask(frames, rng(seed), kinds=["at_person"])
    }
    for text, said in asked.items():
        [time] = re.findall(r"\d\.\d", text)
        assert said == ("yes" if time == "2.5" else "no")


def test_one_frame_makes_fine_kinds_a_matter_of_images():
    question = only("person_bare_now", [frame(0, thing("person", helmet=False))])
    assert question is not None
    assert question.family == "image"
    assert all(not ask([frame()], rng(), kinds=[kind]) for kind in ("ever_dog", "at_gate", "interval", "times_gate"))


def test_held_out_wordings_are_none_of_training_but_use_its_words():
    held_out: set[str] = set()
    training: set[str] = set()
    for kind in DECIDED:
        shown, kept = wordings(kind), wordings(kind, held_out=True)
        assert len(set(shown)) >= 5
        assert len(set(kept)) >= 2
        training |= {text.casefold().rstrip("?") for text in shown}
        held_out |= {text.casefold().rstrip("?") for text in kept}
    assert not held_out & training
    assert set().union(*map(words, held_out)) <= set().union(*map(words, training))


@settings(max_examples=40, deadline=None)
@given(episodes(), seeds)
def test_held_out_questions_are_worded_unlike_any_of_training(frames, seed):
    patterns = [re.sub(r"\\\{\w+\\\}", "(.+)", re.escape(text.rstrip("?"))) for text in wordings("gate_open_now")]
    for question in ask(frames, rng(seed), kinds=["gate_open_now", "gate_closed_now"], held_out=True):
        said = question.text.casefold().rstrip("?")
        assert not any(
            re.fullmatch(pattern.replace("(.+)", "(the gate|open|closed|shut)"), said) for pattern in patterns
        )


@settings(max_examples=60, deadline=None)
@given(episodes(), seeds, st.booleans())
def test_the_vocabulary_covers_every_text(frames, seed, held_out):
    kinds = [kind for kind in DECIDED if kind not in ("watch_now", "plate_text_now")]
    for question in ask(frames, rng(seed), kinds=kinds, count=4, held_out=held_out):
        whole = question.text.casefold().rstrip("?")
        assert whole in TEXTS or re.search(r"\d\.\d", whole), question.text
        assert words(re.sub(r"\d", "", question.text)) <= WORDS


def test_the_vocabulary_has_every_character_of_a_plate():
    assert set(GLYPHS) <= set("".join(vocabulary()))


TEXTS = {text.casefold().rstrip("?") for text in vocabulary()}
WORDS = set().union(*map(words, TEXTS))


def test_unknown_questions_are_many_and_share_no_text_with_the_others():
    asked = {question.text for seed in range(100) for question in ask([frame()], rng(seed), kinds=["unknown"], count=5)}
    answerable = TEXTS - {text.casefold().rstrip("?") for text in asked}
    assert len(asked) > 350
    assert len(answerable) > 0.99 * len(TEXTS) - len(asked)
    assert {question.answer for question in ask([frame()], rng(), kinds=["unknown"], count=5)} == {"unknown"}


def scripted(seed: int) -> list[FrameFacts]:
    """A plain episode in which each thing is there about half of the time."""
    draw = rng(seed)
    cast = [
        thing("car", 1, colour="red", plate_px=12.0),
        thing("truck", 2, colour="blue", place="dock", box=(200, 60, 40, 60)),
        thing("person", 3, helmet=False, bag=True, box=(20, 90, 40, 60)),
        thing("person", 4, vest=True, box=(60, 130, 40, 60)),
        thing("person", 5, height_px=26.0, box=(90, 60, 10, 26)),
        thing("bag", 6),
        thing("dog", 7),
        thing("smoke", 8),
    ]
    stays = draw.integers(0, 24, size=(len(cast), 2))
    gate, barrier = draw.integers(4, 12, size=2)
    return [
        FrameFacts(
            0.5 * index,
            "day" if seed % 2 else "night",
            bool(seed % 3),
            index // gate % 2 == 1,
            index // barrier % 2 == 1,
            tuple(each for each, (a, b) in zip(cast, stays, strict=True) if min(a, b) <= index < max(a, b)),
        )
        for index in range(24)
    ]


def test_answers_of_yes_and_no_balance():
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    tally: Counter[tuple[str, str]] = Counter()
    for seed in range(250):
        frames = scripted(seed)
        end = int(rng(seed).integers(6, 25))
        for question in ask(frames[:end], rng(seed), count=12, tally=tally):
            answers[question.kind][question.answer] += 1
    shares = {kind: c["yes"] / c.total() for kind, c in answers.items() if set(c) <= {"yes", "no"} and c.total() >= 40}
    assert len(shares) >= 20
    assert tally == {(kind, said): count for kind, c in answers.items() for said, count in c.items()}
    assert not {kind: share for kind, share in shares.items() if not 0.35 <= share <= 0.65}


def test_grades():
    word = Question("plate_read_now", "fine", "read the plate", "A7K")
    assert [grade(word, said) for said in ("A7K", " a7k. ", "A7", "")] == [1.0, 1.0, 0.0, 0.0]
    interval = Question("interval", "grounding", "when was a dog in view?", "2.0 to 6.0")
    assert grade(interval, "2.0 to 6.0") == 1.0
    assert grade(interval, "4 to 6.0") == 0.5
    assert [grade(interval, said) for said in ("7.0 to 8.0", "6.0 to 2.0", "yes", "")] == [0.0] * 4


def test_the_majority_class_is_counted_per_kind():
    asked = [Question("dog", "video", "?", said) for said in ("yes", "yes", "no")]
    assert majority([*asked, Question("rain_now", "video", "?", "no")]) == 0.75
    assert majority([]) == 0.0


def test_watches_of_an_episode_are_mixed():
    happens, fine = [], []
    for seed in range(30):
        frames = scripted(seed)
        chosen = watches_for(frames, rng(seed), 6)
        assert len({watch.slug for watch in chosen}) == 6
        happens += [bool(watch_intervals(frames, watch)) for watch in chosen]
        fine += [watch.family == "fine" for watch in chosen]
    assert 0.4 <= np.mean(happens) <= 0.7
    assert 0.4 <= np.mean(fine) <= 0.6


def test_watches_have_own_slugs_and_are_worded_as_in_training():
    watches = watch_questions()
    assert len({watch.slug for watch in watches}) == len({watch.text for watch in watches}) == len(watches) >= 18
    assert {watch.text.casefold().rstrip("?") for watch in watches} <= TEXTS


def test_a_plate_is_watched():
    frames = [frame(0, thing("car", plate_px=12.0)), frame(0.5)]
    assert [holds(plate_watch(plate), frames) for plate in ("A7K", "A7X")] == [True, False]
    with pytest.raises(ValueError, match=r"'A7IO'.*expected 2 or 3 characters"):
        plate_watch("A7IO")


def test_bad_requests_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'elephant'.*expected some of gate_open_now"):
        ask([frame()], rng(), kinds=["elephant"])
    with pytest.raises(ValueError, match="no frames"):
        ask([], rng())


def test_the_card_counts_coarse_and_fine_kinds():
    coarse, fine = ({kind for kind, family in CARD_FAMILY.items() if family == name} for name in ("coarse", "fine"))
    assert {"gate_open_now", "vehicle_now", "person_now", "colour_near_now", "smoke_now"} <= coarse
    assert {"plate_read_now", "person_bare_now", "bag_left_now", "person_far_now"} <= fine
