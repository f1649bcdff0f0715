from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.context import Context, ContextRules, Room
from pipeline.types import Segment


def segment(pts_s, tokens=4):
    return Segment((pts_s,), np.zeros((1, 32, 32 * tokens, 3), np.uint8), tokens, f"{pts_s:g}")


def grow(context, hops):
    """Every context on the way, one hop of segments at a time."""
    contexts = [context]
    for hop in hops:
        contexts.append(contexts[-1].append(hop))
    return contexts


@st.composite
def streams(draw):
    """Hops of zero to three segments with growing times, now and then after a gap."""
    hops, at_s = [], draw(st.floats(0, 100))
    for _ in range(draw(st.integers(1, 60))):
        at_s += draw(st.sampled_from([1.0, 1.0, 1.0, 1.0, 40.0]))
        count = draw(st.integers(0, 3))
        hops.append(tuple(segment(at_s + i / 4, draw(st.integers(1, 60))) for i in range(count)))
    return hops


@given(streams(), st.integers(100, 600))
def test_within_an_epoch_a_context_only_grows_at_its_end(hops, cap):
    contexts = grow(Context.empty("yard", ContextRules(max_tokens=cap)), hops)
    for before, after in pairwise(contexts):
        if after.epoch == before.epoch and before.segments:
            assert after.segments[: len(before.segments)] == before.segments
            assert after.anchor_s == before.anchor_s


@given(streams(), st.integers(100, 600))
def test_a_context_keeps_its_bounds_and_its_newest_hop(hops, cap):
    rules = ContextRules(max_tokens=cap)
    newest = 0
    for hop, context in zip(hops, grow(Context.empty("yard", rules), hops)[1:], strict=True):
        assert context.segments[len(context.segments) - len(hop) :] == hop
        newest = sum(s.tokens for s in hop) if hop else newest
        assert context.tokens <= max(cap, newest)
        if context.segments:
            assert context.anchor_s == context.segments[0].pts_s[0]
            assert context.segments[-1].pts_s[-1] - context.anchor_s <= rules.max_s
        times = [s.pts_s[0] for s in context.segments]
        assert times == sorted(times)


def test_a_full_context_restarts_at_what_it_keeps():
    contexts = grow(Context.empty("yard", ContextRules(10, 4)), [(segment(float(t)),) for t in range(40)])
    restarts = [b for a, b in pairwise(contexts) if b.epoch > a.epoch]
    assert [round(c.segments[-1].pts_s[0] - c.anchor_s) for c in restarts] == [4] * len(restarts)
    assert len(restarts) >= 5


def test_streams_attached_together_do_not_restart_together():
    first_epochs = {Context.empty(f"camera-{i}", ContextRules()).max_s for i in range(16)}
    assert len(first_epochs) == 16
    assert all(15.0 <= max_s <= 30.0 for max_s in first_epochs)


def test_what_is_owed_covers_what_the_next_restart_sends_again_to_within_a_hop():
    context = grow(Context.empty("yard", ContextRules(10, 4)), [(segment(float(t)),) for t in range(60)])[-1]
    promised, restarts = None, 0
    for t in range(60, 100):
        owed, resent = context.owed(t + 1.0)
        after = context.append((segment(float(t)),))
        if after.epoch > context.epoch and promised is not None:
            assert promised - 4 <= sum(s.tokens for s in after.segments[:-1]) <= promised
            restarts += 1
        context, promised = after, owed + 4 * resent
    assert restarts >= 5


def test_what_cannot_be_paid_for_goes_oldest_first():
    context = grow(Context.empty("yard", ContextRules()), [(segment(float(t), 10),) for t in range(5)])[-1]
    trimmed = context.afford(50, 25)
    assert [s.pts_s[0] for s in trimmed.segments] == [3.0, 4.0]
    assert (trimmed.epoch, trimmed.anchor_s) == (context.epoch + 1, 3.0)
    assert context.afford(50, 0).segments == ()


def test_what_was_sent_before_costs_nothing_more_and_stays():
    context = grow(Context.empty("yard", ContextRules()), [(segment(float(t), 10),) for t in range(5)])[-1]
    trimmed = context.afford(30, 15)
    assert [s.pts_s[0] for s in trimmed.segments] == [0.0, 1.0, 4.0]
    assert (trimmed.epoch, trimmed.anchor_s) == (context.epoch, 0.0)


def test_a_context_restarts_before_it_outgrows_the_mllms_room():
    context, tokens, reasons = Context.empty("yard", ContextRules()), [], []
    for t in range(14):
        before, context = context, context.append((segment(float(t), 10),), Room(tokens=60))
        tokens.append(context.tokens)
        reasons.append(context.restarted_since(before.epoch))
    assert max(tokens) == 60
    assert tokens[6:10] == [30, 40, 50, 60]
    assert [reason for reason in reasons if reason] == ["pressure"] * 2


def test_a_context_restarts_before_it_has_more_pictures_than_the_mllm_takes():
    context = Context.empty("yard", ContextRules())
    counts = []
    for t in range(12):
        context = context.append((segment(float(t)),), Room(segments=4))
        counts.append(len(context.segments))
    assert counts == [1, 2, 3, 4, 2, 3, 4, 2, 3, 4, 2, 3]
    assert context.append((segment(20.0),), Room(segments=1)).segments[0].pts_s == (20.0,)


def test_without_new_frames_a_context_is_left_as_it_is_whatever_the_room():
    context = Context.empty("yard", ContextRules()).append((segment(0.0, 10), segment(1.0, 10)))
    assert context.append((), Room(tokens=10, segments=1)) is context
    assert len(context.append((segment(2.0, 10),), Room(tokens=10, segments=1)).segments) == 1


@given(streams(), st.integers(1, 300), st.integers(1, 20))
def test_whatever_the_room_the_newest_hop_is_kept_and_nothing_beyond_it(hops, tokens, segments):
    context, room, newest = Context.empty("yard", ContextRules()), Room(tokens, segments), ()
    for hop in hops:
        context = context.append(hop, room)
        newest = hop or newest
        assert context.segments[len(context.segments) - len(newest) :] == newest
        assert context.tokens <= max(tokens, sum(one.tokens for one in newest))
        assert len(context.segments) <= max(segments, len(newest))


def test_why_a_context_restarted_is_told():
    context = Context.empty("yard", ContextRules(10, 4, max_tokens=100)).append((segment(0.0, 60),))
    assert context.reason is None
    assert context.append((segment(11.0, 10),)).reason == "age"
    assert context.append((segment(1.0, 60),)).reason == "tokens"
    assert context.append((segment(1.0, 10),), Room(tokens=60)).reason == "pressure"
    assert context.afford(60, 10).reason == "unpaid"


def test_what_is_owed_covers_a_restart_for_want_of_room_too():
    context, room, restarts = Context.empty("yard", ContextRules()), Room(tokens=100), 0
    for t in range(14):
        owed, resent = context.owed(t + 1.0, room)
        after = context.append((segment(float(t), 10),), room)
        if after.epoch > context.epoch:
            assert resent
            assert 0 <= owed - (after.tokens - 10) <= 10
            restarts += 1
        context = after
    assert restarts == 1
