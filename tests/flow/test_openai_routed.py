"""Several servers of one model: a stream keeps to one, a server that goes takes only its own streams along, and what
has to be read again is paid for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from allocator_engine.grid import GRIDS
from pipeline.build import build_mllm
from pipeline.clock import Clock, SystemClock
from pipeline.config.mllm import OpenAIConfig
from pipeline.config.site import parse_site
from pipeline.core.context import Context, ContextRules
from pipeline.core.hops import HopRules
from pipeline.core.state import StreamRun
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMUnavailable
from pipeline.loop import watch_stream
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.mllm.openai.routed import AGAIN_S, EASED_S, PRESSED_S, RoutedMLLM
from pipeline.testing import ManualClock, ScriptedSource
from pipeline.types import WatchQuery
from tests.checkpoints import context, segment
from tests.flow.test_loop import CAR, build
from tests.flow.test_loop import seconds as frames_of
from tests.mllm_contract import (
    stream_id,
    test_a_forgotten_stream_is_pending_as_a_whole_and_unknown_ones_are_fine,
    test_a_limit_refuses_before_anything_is_sent,
    test_pending_says_exactly_what_the_next_ask_encodes,
    test_streams_may_ask_at_once_and_do_not_mix,
    test_when_started_or_closed_again_nothing_happens,
    tolerance,
)
from tests.mllm_server import MODEL, MLLMServer, Turn, serving

OF_THE_CONTRACT = (
    *(stream_id, tolerance),
    test_a_forgotten_stream_is_pending_as_a_whole_and_unknown_ones_are_fine,
    test_a_limit_refuses_before_anything_is_sent,
    test_pending_says_exactly_what_the_next_ask_encodes,
    test_streams_may_ask_at_once_and_do_not_mix,
    test_when_started_or_closed_again_nothing_happens,
)
"""What could go wrong between the streams and their servers; the rest is each server's own."""

GRID = GRIDS["qwen3_vl"]
GATE = WatchQuery("gate", "Is the gate open?")
NAMES = [f"camera-{number}" for number in range(200)]
STREAMS = NAMES[:9]
BUSY = Turn(429, headers={"Retry-After": "3600"})


@pytest.fixture
def servers() -> Iterator[list[MLLMServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving()) for _ in range(3)]


@pytest.fixture
async def mllm(servers: list[MLLMServer]) -> AsyncIterator[RoutedMLLM]:
    async with started(servers) as routed:
        yield routed


def routed_to(servers: list[MLLMServer], clock: Clock = SystemClock(), **options: object) -> RoutedMLLM:
    settings = OpenAIConfig(use="openai:test", **options)  # type: ignore[arg-type]
    return RoutedMLLM([OpenAIMLLM(server.url, MODEL, settings, clock) for server in servers], clock)


@asynccontextmanager
async def started(
    servers: list[MLLMServer], clock: Clock = SystemClock(), **options: object
) -> AsyncIterator[RoutedMLLM]:
    routed = routed_to(servers, clock, **options)
    try:
        await routed.start()
        for server in servers:
            server.asked.clear()
        yield routed
    finally:
        await routed.close()


def seconds(count: int, stream_id: str) -> Context:
    return context(*(segment(GRID, float(second)) for second in range(count)), stream_id=stream_id)


async def ask_all(mllm: RoutedMLLM, hop: int) -> Counter[str]:
    """Ask about each stream up to a second; the outcomes by name."""
    outcomes = Counter()
    for stream in STREAMS:
        shown = seconds(hop, stream)
        try:
            await mllm.ask(shown, [GATE], mllm.pending(shown))
            outcomes["answered"] += 1
        except MLLMUnavailable as error:
            outcomes[type(error).__name__] += 1
    return outcomes


def homes(mllm: RoutedMLLM) -> dict[str, str]:
    return {stream: mllm.where(stream) for stream in NAMES}


def home_of(mllm: RoutedMLLM, servers: list[MLLMServer], stream: str) -> MLLMServer:
    return next(server for server in servers if server.url.startswith(mllm.where(stream)))


def end(server: MLLMServer) -> None:
    server.shutdown()
    server.hang_up()
    server.server_close()


async def until(condition: object, clock: ManualClock | None = None) -> None:
    for _ in range(2000):
        if condition():  # type: ignore[operator]
            return
        if clock and clock.sleepers:
            clock.advance(AGAIN_S[1])
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


async def test_a_stream_keeps_to_one_server_and_each_server_has_some(
    mllm: RoutedMLLM, servers: list[MLLMServer]
) -> None:
    for hop in (1, 2, 3):
        assert await ask_all(mllm, hop) == {"answered": len(STREAMS)}
    assert len(set(homes(mllm).values())) == 3
    assert sum(len(server.asked) for server in servers) == 3 * len(STREAMS)
    for server in servers:  # the pictures of a hop went once, and the ones before by their name
        assert sum(one.shown for one in server.asked) == len(server.asked)
    assert mllm.counts()["moved"] == 0


async def test_another_process_finds_each_stream_where_it_is(mllm: RoutedMLLM, servers: list[MLLMServer]) -> None:
    async with started(servers[::-1]) as other:
        assert homes(other) == homes(mllm)


async def test_a_server_that_goes_takes_only_its_own_streams_along(mllm: RoutedMLLM, servers: list[MLLMServer]) -> None:
    for hop in (1, 2):
        await ask_all(mllm, hop)
    before = homes(mllm)
    gone = home_of(mllm, servers, STREAMS[0])
    lost = [stream for stream, home in before.items() if home == gone.url.removesuffix("/v1")]
    end(gone)
    skipped = await ask_all(mllm, 3)
    assert skipped["answered"] >= len(STREAMS) - 2, "only the streams that found out are skipped"
    assert await ask_all(mllm, 4) == {"answered": len(STREAMS)}
    after = homes(mllm)
    assert {stream for stream in NAMES if after[stream] != before[stream]} == set(lost)
    assert mllm.counts()["moved"] == len(lost)


async def test_what_another_server_has_not_read_is_pending_and_paid_for(
    mllm: RoutedMLLM, servers: list[MLLMServer]
) -> None:
    shown = seconds(4, "gate")
    await mllm.ask(shown, [GATE])
    assert mllm.pending(shown) == 0
    end(home_of(mllm, servers, "gate"))
    with pytest.raises(MLLMUnavailable):
        await mllm.ask(shown, [GATE], 0)
    assert mllm.pending(shown) == shown.tokens
    with pytest.raises(MLLMUnavailable, match="0 were paid for") as refused:
        await mllm.ask(shown, [GATE], 0)
    assert not refused.value.sent
    answers = await mllm.ask(shown, [GATE], shown.tokens)
    assert answers.usage.encoded_tokens == shown.tokens
    assert mllm.pending(shown) == 0


async def test_a_stream_whose_server_goes_loses_one_hop_and_never_spends_more_than_its_budget(
    mllm: RoutedMLLM, servers: list[MLLMServer]
) -> None:
    for server in servers:
        server.habits.share = 0.9
    _, runtime = build(CAR, mllm=mllm)  # type: ignore[arg-type]
    run = StreamRun("yard", HopRules(), Context.empty("yard", ContextRules()))
    await watch_stream(run, ScriptedSource(frames_of(3)), runtime)
    end(home_of(mllm, servers, "yard"))
    await watch_stream(run, ScriptedSource(frames_of(5, start=3)), runtime)
    assert [event.type for event in runtime.outbox.events] == ["watch.opened"]
    assert run.counts.skipped == 1
    assert run.counts.answers == 7
    assert run.counts.spent >= run.counts.encoded


async def test_what_the_others_have_in_their_caches_stays_of_use_where_one_goes(
    mllm: RoutedMLLM, servers: list[MLLMServer]
) -> None:
    hops, usage = 16, Counter()
    before, gone = homes(mllm), home_of(mllm, servers, STREAMS[0])
    for hop in range(1, hops + 1):
        if hop == hops // 2:
            end(gone)
        for stream in STREAMS:
            shown = seconds(hop, stream)
            moved = gone.url.startswith(before[stream])
            try:
                found = (await mllm.ask(shown, [GATE], mllm.pending(shown))).usage
            except MLLMUnavailable:
                assert moved, "a stream of another server is not disturbed"
                continue
            if not moved:
                assert found.encoded_tokens == shown.segments[-1].tokens
            usage["prefilled"] += found.prefilled_tokens
            usage["cached"] += found.cached_tokens
    assert usage["cached"] / (usage["cached"] + usage["prefilled"]) >= 0.8


async def test_a_server_that_is_back_gets_its_streams_again(servers: list[MLLMServer]) -> None:
    clock = ManualClock()
    async with started(servers, clock) as mllm:
        await ask_all(mllm, 1)
        before, gone = homes(mllm), home_of(mllm, servers, STREAMS[0])
        gone.habits.answers_as = "acme/another"  # another model, which must not answer
        gone.habits.models = {"acme/another": "/weights/b"}
        await ask_all(mllm, 2)
        assert await ask_all(mllm, 3) == {"answered": len(STREAMS)}
        assert gone.url.removesuffix("/v1") not in homes(mllm).values()
        gone.habits.answers_as = None
        gone.habits.models = {MODEL: "/weights/a"}
        await until(lambda: homes(mllm) == before, clock)
        assert await ask_all(mllm, 4) == {"answered": len(STREAMS)}


async def test_a_server_that_has_too_much_gets_fewer_and_by_and_by_its_own_again(servers: list[MLLMServer]) -> None:
    clock = ManualClock()
    async with started(servers, clock) as mllm:
        await ask_all(mllm, 1)
        before = homes(mllm)
        pressed = servers[0].url.removesuffix("/v1")
        own = [stream for stream, home in before.items() if home == pressed]
        servers[0].habits.next.append(BUSY)
        with pytest.raises(MLLMOverloaded):
            await mllm.ask(seconds(2, own[0]), [GATE])
        after = homes(mllm)
        moved = {stream for stream in NAMES if after[stream] != before[stream]}
        assert set() < moved < set(own), "some of its streams move, and none of the others"
        servers[0].habits.next.append(BUSY)
        still = next(stream for stream in own if after[stream] == pressed)
        with pytest.raises(MLLMOverloaded):
            await mllm.ask(seconds(2, still), [GATE])
        assert homes(mllm) == after, "not again at once: what went has taken its load along"
        clock.advance(PRESSED_S + EASED_S)
        assert homes(mllm) == before


async def test_one_busy_reply_that_was_waited_for_counts_as_too_much(servers: list[MLLMServer]) -> None:
    async with started(servers) as mllm:
        home = home_of(mllm, servers, "gate")
        home.habits.next.append(Turn(503, headers={"Retry-After": "0"}))
        with capture_logs() as logs:
            await mllm.ask(seconds(1, "gate"), [GATE])
        assert [one["weight"] for one in logs if one["event"] == "mllm_server_has_too_much"] == [0.5]


async def test_a_prompt_that_is_refused_moves_nobody(mllm: RoutedMLLM, servers: list[MLLMServer]) -> None:
    for server in servers:
        server.habits.refuse = lambda prompt: Turn(400, b'{"error": {"message": "no"}}')
    before = homes(mllm)
    for _ in range(3):
        with pytest.raises(MLLMUnavailable):
            await mllm.ask(seconds(1, "gate"), [GATE])
    assert homes(mllm) == before
    assert mllm.counts()["moved"] == 0


async def test_where_all_are_gone_nobody_moves_and_each_is_asked_again(servers: list[MLLMServer]) -> None:
    clock = ManualClock()
    async with started(servers, clock) as mllm:
        await ask_all(mllm, 1)
        before = homes(mllm)
        for server in servers:
            server.habits.models = {"acme/another": "/weights/b"}
            server.hang_up()
        for hop in (2, 3):
            assert "answered" not in await ask_all(mllm, hop)
        for server in servers:
            server.habits.models = {MODEL: "/weights/a"}
        await until(lambda: homes(mllm) == before, clock)
        assert await ask_all(mllm, 4) == {"answered": len(STREAMS)}


# The start


async def test_a_server_that_is_away_at_the_start_is_waited_for_by_the_others() -> None:
    clock = ManualClock()
    with serving() as first, serving() as second:
        port = second.server_port
        second.shutdown()
        second.server_close()
        async with started([first, second], clock) as mllm:
            assert await ask_all(mllm, 1) == {"answered": len(STREAMS)}
            assert set(homes(mllm).values()) == {first.url.removesuffix("/v1")}
            with serving(port) as again:
                await until(lambda: len(set(homes(mllm).values())) == 2, clock)
                newcomer = next(stream for stream in NAMES if again.url.startswith(mllm.where(stream)))
                await mllm.ask(seconds(1, newcomer), [GATE])
                assert again.asked


async def test_without_any_server_there_is_no_start(servers: list[MLLMServer]) -> None:
    for server in servers:
        server.habits.next.extend([Turn(500)] * 50)
        server.listing = b"starting"
    mllm = routed_to(servers)
    with pytest.raises(MLLMUnavailable):
        await mllm.start()
    await mllm.close()


async def test_a_server_without_the_model_is_refused_at_the_start(servers: list[MLLMServer]) -> None:
    servers[1].habits.models = {"acme/another": "/weights/b"}
    mllm = routed_to(servers)
    with pytest.raises(ConfigError, match="does not serve"):
        await mllm.start()
    await mllm.close()


async def test_pictures_are_as_large_as_every_server_wants_them(servers: list[MLLMServer]) -> None:
    servers[2].habits.least_cells = 4
    async with started(servers, min_tokens_per_segment=4) as mllm:
        assert mllm.info.grid == replace(GRID, min_pixels=4 * GRID.cell_px**2)


@pytest.mark.parametrize("known", [True, False])
async def test_all_pixels_are_needed_where_one_server_needs_them(servers: list[MLLMServer], known: bool) -> None:
    servers[2].habits.uuids = known
    async with started(servers) as mllm:
        assert mllm.info.needs_pixels == (not known)


# The settings


async def test_a_router_is_told_the_session_and_not_the_name_of_the_stream(servers: list[MLLMServer]) -> None:
    async with started(servers[:2], session_header="x-user-id") as mllm:
        await ask_all(mllm, 1)
        await ask_all(mllm, 2)
    sent = [one.headers["x-user-id"] for server in servers for one in server.asked]
    assert len(sent) == 2 * len(STREAMS)
    assert set(Counter(sent).values()) == {2}
    assert not any("camera" in one for one in sent)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"servers": ["http://b:8000/v1#other"]}, "the model is that of mllm.use"),
        ({"servers": ["b:8000"]}, "mllm.servers"),
        ({"servers": ["kafka://b:8000/v1"]}, "mllm.servers"),
        ({"servers": ["http://a:8000/v1"]}, "twice"),
        ({"servers": ["http://u:hunter2@b:8000/v1#x"]}, "mllm.servers"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_an_address_that_cannot_be_one_of_the_servers_is_refused(more: dict, said: str) -> None:
    site = parse_site({"mllm": {"use": f"openai:http://a:8000/v1#{MODEL}", **more}})
    with pytest.raises(ConfigError, match=said) as refused:
        build_mllm(site.mllm, SystemClock())
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["Authorization", "host", "x y", "", "x:y", "content-length"])
def test_a_header_that_requests_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="session_header"):
        parse_site({"mllm": {"use": f"openai:http://a:8000/v1#{MODEL}", "session_header": name}})


def test_a_site_with_several_servers_has_a_routed_mllm() -> None:
    servers = ["http://b:8000/v1", "http://c:8000/v1"]
    site = parse_site({"mllm": {"use": f"openai:http://a:8000/v1#{MODEL}", "servers": servers}})
    mllm = build_mllm(site.mllm, SystemClock())
    assert isinstance(mllm, RoutedMLLM)
    assert set(homes(mllm).values()) == {"http://a:8000", "http://b:8000", "http://c:8000"}
