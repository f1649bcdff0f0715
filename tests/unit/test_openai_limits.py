"""How much a server takes is learned from what it refuses, in whatever words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator_engine.fit import Allocation, SegmentSize
from allocator_engine.grid import GRIDS
from pipeline.core.context import Room
from pipeline.loop import newest
from pipeline.mllm.openai import limits as limits_module
from pipeline.mllm.openai.limits import FIRST_WAIT_S, LONGEST_WAIT_S, Hint, Limits, LimitsOfStreams, Size
from pipeline.mllm.openai.words import advice_on, hint_of
from tests.checkpoints import context, segment

LEAST_TOKENS = 4
SIZES = st.builds(Size, st.integers(1, 500), st.integers(1, 100_000))


def unknown(pictures: int = 0, tokens: int = 0) -> Limits:
    return Limits.unknown(LEAST_TOKENS, Size(pictures, tokens))


class Camera:
    """A stream that sends `per_hop` pictures of `tokens` each hop, in as large a context as it may."""

    def __init__(self, per_hop: int, tokens: int, most_seconds: int = 30) -> None:
        self.per_hop, self.tokens, self.most_seconds = per_hop, tokens, most_seconds
        self.seconds, self.now_s, self.limits = 0, 0.0, unknown()
        self.asked: list[tuple[Size, bool]] = []

    def hop(self, takes, hint: Hint = Hint()) -> bool:
        """One second; whether the server took what was sent."""
        room = Room(self.limits.tokens.most or 10**9, self.limits.pictures.most or 10**9)
        self.now_s += 1.0
        new = min(self.per_hop, room.segments)
        each = min(self.tokens, max(1, room.tokens // new))
        self.seconds = self.seconds + 1 if self.seconds < self.most_seconds else self.most_seconds // 2
        pictures, tokens = self.seconds * new, self.seconds * new * each
        if pictures > room.segments or tokens > room.tokens:
            self.seconds = max(1, min(room.segments // new, room.tokens // (new * each)) // 2)
            pictures, tokens = self.seconds * new, self.seconds * new * each
        size = Size(pictures, tokens)
        if took := takes(size):
            self.limits = self.limits.after_taking(size, self.now_s)
        else:
            self.limits = self.limits.after_refusing(size, self.now_s, hint)
            self.seconds = 0
        self.asked.append((size, took))
        return took


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.integers(2, 900),
    st.integers(1, 200),
    st.integers(32, 40_000),
    st.integers(32, 40_000),
    st.integers(10, 60),
)
def test_whatever_a_server_takes_at_most_nearly_every_hop_is_answered(
    per_hop: int, tokens: int, most_pictures: int, most_tokens: int, most_in_a_picture: int, most_seconds: int
) -> None:
    camera = Camera(per_hop, tokens, most_seconds)

    def takes(size: Size) -> bool:
        fits = size.pictures <= most_pictures and size.tokens <= most_tokens
        return fits and size.tokens <= most_in_a_picture * size.pictures

    took = [camera.hop(takes) for _ in range(400)]
    assert took.count(False) <= 48
    assert took[100:].count(False) <= 32


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(64, 900), st.integers(8, 200))
def test_a_server_that_takes_much_is_sent_much(per_hop: int, tokens: int, most_pictures: int) -> None:
    camera = Camera(per_hop, tokens, most_seconds=300)
    for _ in range(300):
        camera.hop(lambda size: size.pictures <= most_pictures)
    taken = max(size.pictures for size, took in camera.asked[100:] if took)
    assert taken >= max(per_hop, most_pictures // 2)


@settings(deadline=None)
@given(SIZES, SIZES, st.floats(0, 1e6))
def test_after_a_refusal_less_is_sent_at_half_at_most(taken: Size, refused: Size, now_s: float) -> None:
    limits = unknown(taken.pictures, taken.tokens).after_refusing(refused, now_s)
    lowered = [
        limits.pictures.most is not None and limits.pictures.most <= max(1, refused.pictures // 2),
        limits.tokens.most is not None and limits.tokens.most <= max(LEAST_TOKENS, refused.tokens // 2),
    ]
    assert any(lowered)


@settings(deadline=None)
@given(SIZES, st.lists(SIZES, max_size=20), st.floats(0, 1e6))
def test_no_refusal_ends_it_all(taken: Size, refused: list[Size], now_s: float) -> None:
    limits = unknown(taken.pictures, taken.tokens)
    for size in refused:
        limits = limits.after_refusing(size, now_s)
        assert (limits.pictures.most or 1) >= 1
        assert (limits.tokens.most or LEAST_TOKENS) >= LEAST_TOKENS


@settings(deadline=None)
@given(SIZES, st.sampled_from(["pictures", "tokens", None]), st.integers(0, 3))
def test_one_odd_refusal_is_forgotten_as_soon_as_as_much_is_taken(size: Size, measure: str | None, most: int) -> None:
    limits = unknown(size.pictures, size.tokens).after_refusing(size, 100.0, Hint(measure, most))
    for second in range(60):
        pictures, tokens = limits.pictures.most or size.pictures, limits.tokens.most or size.tokens
        limits = limits.after_taking(Size(min(pictures, size.pictures), min(tokens, size.tokens)), 101.0 + second)
    assert limits.allows(size)


def test_what_was_refused_is_tried_again_after_a_while_that_doubles() -> None:
    limits, now_s, waits = unknown(4, 400).after_refusing(Size(6, 400), 0.0), 0.0, []
    for _ in range(9):
        since_s = now_s
        while not limits.allows(Size(6, 100)):
            now_s += 1.0
            limits = limits.after_taking(Size(limits.pictures.most or 6, 100), now_s)
        waits.append(now_s - since_s)
        limits = limits.after_refusing(Size(6, 100), now_s)
    assert waits[0] == pytest.approx(FIRST_WAIT_S, abs=5)
    assert waits[3] == pytest.approx(8 * FIRST_WAIT_S, abs=5)
    assert waits[-1] == pytest.approx(LONGEST_WAIT_S, abs=5)


def test_to_blame_is_what_is_larger_than_anything_taken_before() -> None:
    limits = unknown(8, 1000).after_refusing(Size(8, 1200), 0.0)
    assert (limits.pictures.most, limits.tokens.most) == (None, 600)
    limits = unknown(8, 1000).after_refusing(Size(9, 900), 0.0)
    assert (limits.pictures.most, limits.tokens.most) == (4, None)


def test_refused_again_with_less_both_measures_are_to_blame() -> None:
    limits = unknown(8, 1000).after_refusing(Size(8, 1200), 0.0).after_refusing(Size(4, 600), 1.0)
    assert (limits.pictures.most, limits.tokens.most) == (2, 300)


def test_a_number_that_fits_is_believed_and_one_that_does_not_is_not() -> None:
    assert unknown(3, 100).after_refusing(Size(6, 200), 0.0, Hint("pictures", 4)).pictures.most == 4
    for odd in (0, 1, 6, 9, None):
        assert unknown(3, 100).after_refusing(Size(6, 200), 0.0, Hint("pictures", odd)).pictures.most == 3


def test_a_failure_counts_only_where_more_was_sent_than_ever() -> None:
    limits = LimitsOfStreams(LEAST_TOKENS)
    limits.take("a", Size(10, 1000), 0.0)
    assert limits.refuse("b", Size(10, 1000), 1.0, Hint(), certain=False) is None
    assert limits.of("b") is None
    assert limits.refuse("b", Size(11, 1000), 1.0, Hint(), certain=False) is not None
    assert limits.refuse("c", Size(2, 10), 1.0, Hint(), certain=True) is not None


def test_each_stream_learns_by_itself_and_so_many_at_most_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "MAX_STREAMS", 2)
    limits = LimitsOfStreams(LEAST_TOKENS)
    for stream_id in "abc":
        limits.refuse(stream_id, Size(8, 800), 0.0, Hint(), certain=True)
    assert [limits.of(stream_id) is None for stream_id in "abcd"] == [True, False, False, True]
    limits.forget("c")
    assert limits.of("c") is None


def test_behind_a_new_connection_what_was_taken_says_nothing_any_more() -> None:
    limits = LimitsOfStreams(LEAST_TOKENS)
    limits.take("a", Size(10, 1000), 0.0)
    limits.anew()
    assert limits.refuse("a", Size(5, 500), 1.0, Hint(), certain=False) is not None


# Words


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("At most 4 image(s) may be provided in one prompt.", Hint("pictures", 4)),  # vLLM 0.6 to 0.10
        ("At most 4 image(s) may be provided in one request.", Hint("pictures", 4)),
        (
            "You set image=4 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 6 image items in the same"
            " prompt.",
            Hint("pictures", 4),
        ),  # vLLM's engine V1
        ("Too many images in request: 12 > 8", Hint("pictures")),
        ("The decoder prompt (length 80) is longer than the maximum model length of 60.", Hint("tokens")),  # vLLM
        ("This model's maximum context length is 8192 tokens. However, you requested 9000", Hint("tokens")),  # OpenAI
        ("The input (1032 tokens) is longer than the model's context length (1024 tokens).", Hint("tokens")),  # SGLang
        ("the request exceeds the available context size, try increasing it", Hint("tokens")),  # llama.cpp
        ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", Hint("tokens")),  # TGI
        ("prompt is too long: 210000 tokens > 200000 maximum", Hint("tokens")),  # Anthropic, by gateways
        ("inappropriate content", Hint()),
        ("", Hint()),
        ("9" * 5000 + " At most " + "9" * 5000 + " images", Hint()),
        ("At most " + "9" * 50 + " images", Hint("pictures")),
    ],
)
def test_the_words_of_known_servers_are_a_hint(said: str, hint: Hint) -> None:
    assert hint_of(said) == hint
    assert bool(advice_on(said)) == (hint.measure is not None)


# The room of a context


def test_of_more_new_pictures_than_one_prompt_may_hold_the_newest_are_sent() -> None:
    allocation = Allocation(tuple(SegmentSize((number,), 32, 32, 1) for number in range(4)))
    assert [one.frames for one in newest(allocation, Room(segments=2)).segments] == [(2,), (3,)]
    assert newest(allocation, Room()) == allocation
    assert newest(Allocation(), Room(segments=2)) == Allocation()


def test_a_context_that_was_refused_restarts_without_new_pictures_too() -> None:
    refused = context(*(segment_at(float(second)) for second in range(8)))
    shrunk = refused.append((), Room(tokens=10**6, segments=4, too_long=True))
    assert [one.pts_s[0] for one in shrunk.segments] == [6.0, 7.0]
    assert (shrunk.epoch, shrunk.reason) == (refused.epoch + 1, "pressure")
    assert refused.append((), Room(segments=4)) is refused


def segment_at(second: float):
    return segment(GRIDS["qwen3_vl"], second)
