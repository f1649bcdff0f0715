from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.grid import GRIDS
from pipeline.core.context import Context, ContextRules
from pipeline.core.ladder import FEWER_ASKINGS, SHED, Ladder
from pipeline.core.questions import FEWER, distinct, doubtful, due, is_due, spread
from pipeline.core.watches import Warming, mark
from pipeline.types import Answer, Hop, WatchQuery
from tests.checkpoints import segment

GRID = GRIDS["qwen3_vl"]


def hop(start_s, length_s=1.0):
    return Hop("yard", start_s, start_s + length_s, ())


def watches(count):
    return [WatchQuery(f"w{i}", f"is there a thing {i}?") for i in range(count)]


@given(st.floats(1.5, 60), st.sampled_from([0.5, 1.0, 2.0]))
def test_a_watch_is_asked_as_often_as_it_wants_and_never_more(every_s, length_s):
    query = WatchQuery("slow", "is it there?", every_s=every_s)
    asked = [index * length_s for index in range(600) if is_due(query, hop(index * length_s, length_s))]
    gaps = [b - a for a, b in pairwise(asked)]
    assert all(gap > every_s - length_s - 1e-6 for gap in gaps)
    assert len(asked) >= min(600, 600 * length_s // every_s)


def test_a_watch_without_a_cadence_is_asked_at_every_hop():
    assert all(is_due(WatchQuery("fast", "is it there?"), hop(float(start))) for start in range(50))


def test_under_load_the_first_half_is_asked_at_every_hop_and_the_others_in_turns():
    asked = Counter(q.id for start in range(40) for q in due(watches(8), hop(float(start)), Ladder(FEWER_ASKINGS)))
    assert [asked[f"w{i}"] for i in range(8)] == [40] * 4 + [40 // FEWER] * 4


def test_when_load_is_shed_only_the_first_are_asked_and_never_nobody():
    assert [q.id for q in due(watches(8), hop(0.0), Ladder(SHED))] == ["w0", "w1"]
    assert [q.id for q in due(watches(1), hop(0.0), Ladder(SHED))] == ["w0"]


def test_a_question_that_several_watches_ask_is_asked_once_and_answered_for_each():
    one, same, other = WatchQuery("a", "is it  day?"), WatchQuery("b", "is it day?"), WatchQuery("c", "is it night?")
    once = distinct([one, same, other])
    assert [query.id for query in once] == ["a", "c"]
    answers = spread([one, same, other], once, [Answer("a", 0.9, 1.0), Answer("c", 0.1, 1.0)])
    assert [(answer.watch_id, answer.score) for answer in answers] == [("a", 0.9), ("b", 0.9), ("c", 0.1)]


def test_an_answer_is_in_doubt_between_its_thresholds_and_only_if_it_is_known():
    queries = watches(4)
    answers = [Answer("w0", 0.5, 1.0), Answer("w1", 0.5, 0.1), Answer("w2", 0.7, 1.0), Answer("w3", 0.3, 1.0)]
    assert [query.id for query in doubtful(queries, answers)] == ["w0"]


def test_a_watch_warms_until_no_frame_is_left_from_before_it_stood():
    old, new = watches(2)
    rules = ContextRules(max_s=4.0, keep_s=2.0)
    context, warming, seen = Context.empty("yard", rules), Warming(), []
    for second in range(12):
        standing = [old, new] if second >= 3 else [old]
        warming = warming.join(standing, hop(float(second)))
        context = context.append([segment(GRID, float(second))])
        seen.append(sorted(warming.unsettled(standing, context)))
    assert seen[:3] == [[], [], []]
    assert seen[3] == ["w1"]
    assert seen[-1] == []
    assert seen == sorted(seen[:3]) + [["w1"]] * seen.count(["w1"]) + [[]] * (9 - seen.count(["w1"]))


def test_a_watch_that_left_and_came_back_warms_again():
    (query,) = watches(1)
    warming = Warming().join([query], hop(0.0)).join([], hop(1.0)).join([query], hop(2.0))
    context = Context.empty("yard", ContextRules()).append([segment(GRID, 0.0)])
    assert warming.unsettled([query], context) == {"w0"}
    assert [one.warming for one in mark([Answer("w0", 1.0, 1.0)], frozenset({"w0"}))] == [True]
