"""The yard's tasks: the same for every allocator, whatever was shown."""

import pytest

from allocator_engine.evaluate.tasks import Evidence, Span, match
from allocator_engine.train.reward import check
from samples.yard.episodes import evidence
from samples.yard.episodes.distracted import distracted_watches, is_distracted, sweeps
from samples.yard.episodes.tasks import YardTasks
from samples.yard.questions.grammar import Question as Asked
from samples.yard.questions.truth import GATE_OPEN
from samples.yard.questions.watches import watch_questions
from samples.yard.questions.wordings import IS, clauses
from samples.yard.world.facts import FrameFacts, Thing
from tests.unit.yard_facts import thing

WATCHES = {watch.slug: watch for watch in watch_questions()}


def placed(id: int, kind: str, left: float, wide: int = 40, high: int = 40) -> Thing:
    return thing(kind, id, box=(round(left), 100, wide, high), height_px=float(high))


def frames(seconds: int, shows) -> list[FrameFacts]:
    """Two frames a second; `shows` gives what is there at a time."""
    return [FrameFacts(t / 2, "day", False, False, False, tuple(shows(t / 2))) for t in range(2 * seconds)]


def hops(facts: list[FrameFacts]) -> list[list[FrameFacts]]:
    return [facts[first : first + 2] for first in range(0, len(facts), 2)]


@pytest.fixture(scope="module")
def source() -> YardTasks:
    return YardTasks(range(800_003, 800_005), seconds=8.0)


def test_an_episode_has_tasks_of_every_family_and_they_repeat(source):
    tasks = source.tasks(0)
    assert tasks == YardTasks(range(800_003, 800_004), seconds=8.0).tasks(0)
    assert {task.family for task in tasks} == {"watch_f1", "qa", "grounding", "image"}
    assert {task.episode for task in tasks} == {"yard-800003 8 s"}
    assert len({task.name for task in tasks}) == len(tasks)
    assert all(task.standing for task in tasks)


def test_every_question_can_be_graded_and_is_asked_of_a_hop_that_is_shown(source):
    for task in source.tasks(1):
        shown = source.hops(task.clip)
        for question in task.questions:
            check(question.form, question.truth)
            assert question.hop == len(shown) - 1
        assert all(0 <= one.hop < len(shown) and 0 < one.scale <= 1 for one in task.evidence)


def test_of_what_is_now_nobody_knows_before_it_is_asked(source):
    (asked,) = (task for task in source.tasks(1) if task.family == "qa")
    last = len(source.hops(asked.clip)) - 1
    present = {question.text for question in asked.questions if question.split in ("coarse", "fine")}
    assert present
    assert set(asked.standing) - set(asked.standing_in(last - 1)) == present
    assert asked.standing_in(last) == asked.standing
    others = [task for task in source.tasks(1) if task.family in ("grounding", "watch_f1")]
    assert all(task.standing_in(0) == task.standing for task in others)


def test_a_single_picture_is_a_clip_of_one_frame(source):
    clips = [task.clip for task in source.tasks(0) if task.family == "image"]
    shown = source.hops(clips[0])
    assert [len(hop.pictures) for hop in shown] == [1]
    assert (shown[0].end_s, shown[0].sizes) == (0.5, [(256, 448)])


QUIET_S = 6.0


def behind_quiet(together: int = 8) -> YardTasks:
    return YardTasks(range(800_003, 800_005), 8.0, together=together, quiet_s=QUIET_S)


def test_quiet_time_comes_before_the_same_episode_with_the_same_watches(source):
    (plain,), (task,) = ([one for one in of.tasks(0) if one.watches] for of in (source, behind_quiet()))
    assert [one.text for one in task.watches] == [one.text for one in plain.watches]
    before, after = source.hops(plain.clip), behind_quiet().hops(task.clip)
    assert [hop.start_s for hop in after] == [float(second) for second in range(int(QUIET_S) + len(before))]
    for earlier, later in zip(before, after[int(QUIET_S) :], strict=True):
        assert [one - QUIET_S for one in later.pts_s] == pytest.approx(earlier.pts_s)
        assert later.pictures == earlier.pictures
    assert task.shown_hop == QUIET_S
    assert (task.name, task.clip, task.episode) != (plain.name, plain.clip, plain.episode)


def test_only_what_begins_after_the_quiet_time_counts(source):
    (plain,), (task,) = ([one for one in of.tasks(1) if one.watches] for of in (source, behind_quiet()))
    for alone, late in zip(plain.watches, task.watches, strict=True):
        assert late.counted_s == (QUIET_S, float("inf"))
        begun = [span for span in late.spans if span.since_s >= QUIET_S]
        known = [span for span in alone.spans if span.since_s > 0]
        assert [one.certain_s for one in begun][-len(known) :] == pytest.approx(
            [one.certain_s and one.certain_s + QUIET_S for one in known]
        )
        found = match(late.spans, [1.0], late.counted_s)
        assert (found.found, found.false) == (0, 0)


def test_quiet_time_is_for_watches_alone():
    assert {task.family for task in behind_quiet(1).tasks(0)} == {"watch_f1"}
    assert all(task.shown_hop == QUIET_S for task in behind_quiet(1).tasks(0))


def test_families_that_are_not_wanted_are_left_out():
    tasks = YardTasks(range(800_003, 800_004), 8.0, families=("grounding",)).tasks(0)
    assert {task.family for task in tasks} <= {"grounding"}


def test_watches_are_reworded_in_words_that_training_never_uses(source):
    (task,) = (task for task in source.tasks(0) if task.watches)
    assert len(task.reworded) == len(task.watches)
    used = {
        wording.format(**said) for watch in watch_questions() for said in clauses(watch.condition) for wording in IS[0]
    }
    assert not set(task.reworded) & {*used, *task.standing}


def test_watches_that_do_not_stand_together_are_the_same_in_tasks_of_their_own(source):
    (all_at_once,) = (task for task in source.tasks(0) if task.watches)
    apart = YardTasks(range(800_003, 800_004), 8.0, ("watch_f1",), together=3).tasks(0)
    assert [len(task.watches) for task in apart] == [3, 3, 2]
    assert tuple(watch for task in apart for watch in task.watches) == all_at_once.watches
    assert {(task.clip, task.episode) for task in apart} == {(all_at_once.clip, all_at_once.episode)}
    assert len({task.name for task in apart}) == 3


def test_evidence_of_a_watch_is_where_it_begins_and_ends():
    spans = [Span(3.5, 4.0, 8.0), Span(6.0, None, 7.0), Span(14.5, 14.5, 16.0)]
    assert [one.hop for one in evidence.of_watch(spans, 16)] == [4, 5, 8, 9, 14, 15]


def test_evidence_of_a_question_is_where_it_is_decided():
    facts = frames(8, lambda t: [placed(1, "dog", 50, high=18)] if 2 <= t < 5 else [])
    said = {"interval": "when was a dog in view?", "ever_dog": "was there ever a dog?", "at_dog": "a dog at 6.0?"}
    found = {kind: evidence.of_past(Asked(kind, "video", text, ""), hops(facts)) for kind, text in said.items()}
    assert [one.hop for one in found["interval"]] == [2, 4]
    assert [one.hop for one in found["ever_dog"]] == [2]
    assert [one.hop for one in found["at_dog"]] == [6]
    assert evidence.of_past(Asked("never", "video", "did no dog come?", "no"), hops(facts))[0].hop == 2
    assert evidence.needed(GATE_OPEN, facts[0]) is None
    assert evidence.of_present(Asked("plate_read_now", "fine", "", "A7", 9.0), 7) == Evidence(7, 1.0)


def test_what_moves_sweeps_and_what_stands_does_not():
    facts = frames(3, lambda t: [placed(1, "car", 20 * t), placed(2, "bag", 300)])
    swept = sweeps(facts)
    assert swept["1"] == pytest.approx(5 * 10 * 40)
    assert swept["2"] == 0


def test_a_watch_is_distracted_if_something_else_moves_while_it_is_decided():
    def left_bag(t: float):
        return [placed(1, "car", 20 * t), *([placed(2, "bag", 300, wide=10, high=12)] if t >= 5 else [])]

    def alone(t: float):
        return [placed(2, "bag", 300, wide=10, high=12)] if t >= 5 else []

    def runner(t: float):
        return [placed(3, "dog", 30 * t - 150)] if t >= 5 else []

    assert is_distracted(WATCHES["bag-left"], frames(10, left_bag))
    assert not is_distracted(WATCHES["bag-left"], frames(10, alone)), "nothing else moves"
    assert not is_distracted(WATCHES["dog"], frames(10, runner)), "it is the dog that moves"
    assert not is_distracted(WATCHES["smoke"], frames(10, left_bag)), "it never happens"
    chosen = {watch.slug for watch in distracted_watches(frames(10, left_bag))}
    assert "bag-left" in chosen
    assert "vehicle" not in chosen
    assert distracted_watches(frames(10, alone)) == ()
