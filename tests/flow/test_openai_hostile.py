"""Whatever a server sends, it ends in MLLMUnavailable by name, within bounds of memory and time."""

import asyncio
import gzip
import json
import resource
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, MLLMTimeout, MLLMUnavailable
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.mllm.openai.exchange import MAX_REPLY_BYTES
from pipeline.testing import ManualClock
from tests.flow.test_openai import GATE, KEY, MANY, MODEL, backend, seconds, started, until
from tests.mllm_server import Handler, MLLMServer, Turn, serving
from tests.unit.test_openai_replies import ANYTHING, completion

SEVERAL = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def server() -> Iterator[MLLMServer]:
    with serving() as running:
        yield running


@pytest.fixture
async def mllm(server: MLLMServer) -> AsyncIterator[OpenAIMLLM]:
    async with started(server) as backend:
        yield backend


def squeezed(count: int, layers: int) -> bytes:
    body = b'{"a": "' + b"x" * count + b'"}'
    for _ in range(layers):
        body = gzip.compress(body)
    return body


STATUSES = st.sampled_from([200, 201, 204, 400, 404, 418, 422, 500, 502, 599])
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "Content-Encoding", "Content-Type", "Location", "Set-Cookie", "Transfer-Encoding"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
    | st.sampled_from(
        ["gzip", "gzip, gzip", "deflate", "br", "identity", "0", "-1", "1e400", "http://[", "a=b; Max-Age=9"]
    ),
    max_size=2,
)
BODIES = (
    st.binary(max_size=60)
    | ANYTHING.map(lambda value: json.dumps(value).encode())
    | ANYTHING.map(lambda value: json.dumps(completion({"yes": 0.9}) | {"choices": value}).encode())
    | ANYTHING.map(lambda value: json.dumps(completion({"yes": 0.9}) | {"usage": value, "model": MODEL}).encode())
    | st.sampled_from([b"[" * 50_000, b'{"error":' * 50_000, squeezed(10, 1), squeezed(10**7, 1), squeezed(10, 3)])
)


@SEVERAL
@given(status=STATUSES, headers=HEADERS, body=BODIES)
async def test_whatever_a_server_answers_an_ask_is_answered_or_unavailable(
    mllm: OpenAIMLLM, server: MLLMServer, status: int, headers: dict[str, str], body: bytes
) -> None:
    server.habits.refuse = lambda prompt: Turn(status, body, headers)
    answered = None
    with suppress(MLLMUnavailable):
        answered = await mllm.ask(seconds(1), [GATE])
    if answered:
        assert [0.0 <= one.score <= 1.0 for one in answered.answers] == [True]
        assert 0 <= answered.usage.prefilled_tokens + answered.usage.cached_tokens <= 2 * 10**9
    server.habits.refuse = lambda prompt: None
    assert mllm.room(seconds(1)).tokens > 0
    with suppress(MLLMUnavailable):  # what was sent beyond the reply's end is found on the next use of the connection
        await mllm.ask(seconds(1), [GATE])
    assert len((await mllm.ask(seconds(1), [GATE])).answers) == 1


@settings(SEVERAL, max_examples=20)
@given(status=STATUSES, headers=HEADERS, body=BODIES)
async def test_whatever_a_server_answers_at_the_start_that_is_refused_by_name(
    server: MLLMServer, status: int, headers: dict[str, str], body: bytes
) -> None:
    server.habits.refuse = lambda prompt: Turn(status, body, headers)
    mllm = backend(server, timeout_s=5.0)
    with pytest.raises((ConfigError, MLLMUnavailable)):
        await mllm.start()
    await mllm.close()


@settings(SEVERAL, max_examples=20)
@given(body=BODIES | ANYTHING.map(lambda value: json.dumps({"data": value}).encode()))
async def test_whatever_list_of_models_a_server_gives_it_is_one_or_refused_by_name(
    server: MLLMServer, body: bytes
) -> None:
    server.listing = body
    mllm = backend(server, timeout_s=5.0)
    with pytest.raises((ConfigError, MLLMUnavailable)):
        await mllm.start()
    await mllm.close()


@pytest.mark.parametrize("layers", [1, 2, 3])
async def test_a_small_reply_that_unpacks_to_a_large_one_takes_no_memory(
    mllm: OpenAIMLLM, server: MLLMServer, layers: int
) -> None:
    body = squeezed(150_000_000, layers)
    assert len(body) < MAX_REPLY_BYTES
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    server.habits.next.append(Turn(200, body, {"Content-Encoding": ", ".join(["gzip"] * layers)}))
    with pytest.raises(MLLMUnavailable, match=r"more than 1048576 bytes|encoding 'gzip, gzip"):
        await mllm.ask(seconds(1), [GATE])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("x-gzip", gzip.compress)]
)
async def test_a_packed_reply_is_read(server: MLLMServer, encoding: str, pack) -> None:
    async with started(server) as mllm:
        expected = (await mllm.ask(seconds(1), [GATE])).answers
        reply = server.complete(server.asked[-1].request, {})
        server.habits.next.append(Turn(200, pack(json.dumps(reply).encode()), {"Content-Encoding": encoding}))
        assert (await mllm.ask(seconds(1), [GATE])).answers == expected


def dripping(handler: Handler) -> None:
    """Send a byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    try:
        while not handler.server.stopping.wait(0.05):
            handler.wfile.write(b" ")
    except OSError:
        pass
    handler.close_connection = True


@pytest.mark.parametrize("at_start", [True, False])
async def test_a_reply_that_drips_is_given_up_in_time(server: MLLMServer, at_start: bool) -> None:
    mllm = backend(server, timeout_s=1.0)
    if not at_start:
        await mllm.start()
    server.habits.next.append(dripping)
    with pytest.raises(MLLMTimeout, match="1 seconds"):
        await asyncio.wait_for(mllm.start() if at_start else mllm.ask(seconds(1), [GATE]), 30)
    server.stopping.set()
    await mllm.close()


async def test_one_strange_reply_of_many_ends_the_ask_and_not_the_stream(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    await mllm.ask(seconds(1), MANY[:4])
    strange = [Turn(200, b"[" * 50_000), Turn(200, b'{"choices": 1e400}')]
    server.habits.meanwhile = lambda: server.habits.next.append(strange.pop()) if strange else None
    for _ in range(2):
        with pytest.raises(MLLMUnavailable):
            await mllm.ask(seconds(2), MANY[:4])
    assert len((await mllm.ask(seconds(2), MANY[:4])).answers) == 4


async def test_a_server_that_counts_too_many_tokens_takes_no_room_from_other_streams(
    mllm: OpenAIMLLM, server: MLLMServer
) -> None:
    await mllm.ask(seconds(2, "other"), [GATE])
    reply = json.dumps(completion({"yes": 0.9}) | {"model": MODEL, "usage": {"prompt_tokens": 10**9}}).encode()
    server.habits.next.append(Turn(200, reply))
    await mllm.ask(seconds(2), [GATE])
    assert mllm.pending(seconds(2, "other")) == 0
    assert mllm.room(seconds(2, "other")).tokens > 10_000


@pytest.mark.parametrize("value", ["0", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "0.0001", "-1e9"])
async def test_a_busy_server_is_not_asked_again_at_once_whatever_it_says(server: MLLMServer, value: str) -> None:
    clock = ManualClock()
    async with started(server, clock=clock) as mllm:
        server.habits.next.append(Turn(429, headers={"Retry-After": value}))
        asking = asyncio.create_task(mllm.ask(seconds(1), [GATE]))
        await until(lambda: mllm.retried == 1)
        clock.advance(0.2)
        await asyncio.sleep(0.05)
        assert not asking.done()
        clock.advance(0.1)
        assert len((await asking).answers) == 1


@pytest.mark.parametrize("value", ["nan", "1e400", "Mon, 1 Jan 2020 99999999999999999999:00:00", "soon", "9" * 5000])
async def test_a_time_to_wait_that_is_none_is_as_if_none_were_given(server: MLLMServer, value: str) -> None:
    clock = ManualClock()
    async with started(server, clock=clock) as mllm:
        server.habits.next.append(Turn(503, headers={"Retry-After": value}))
        asking = asyncio.create_task(mllm.ask(seconds(1), [GATE]))
        await until(lambda: mllm.retried == 1)
        clock.advance(9.0)
        assert len((await asking).answers) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_takes_the_key_along(server: MLLMServer, status: int) -> None:
    with serving() as other:
        async with started(server, api_key=KEY) as mllm:
            to = other.url.replace("http://", "http://user:secret@") + "/chat/completions?token=hidden"
            server.habits.next.append(Turn(status, headers={"Location": to}))
            with pytest.raises(MLLMUnavailable, match="a redirect to http://127") as error:
                await mllm.ask(seconds(1), [GATE])
        assert other.asked == []
        assert other.listed == 0
    assert "secret" not in str(error.value)
    assert "hidden" not in str(error.value)
