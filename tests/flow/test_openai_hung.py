"""A server that takes requests and answers none of them: named each time, and forgiven as soon as it works again."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.config.mllm import OpenAIConfig
from pipeline.errors import MLLMTimeout
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.mllm.openai.exchange import CONNECTIONS
from tests.flow.test_openai import GATE, MODEL, seconds, started
from tests.mllm_server import MLLMServer, serving


@contextmanager
def hanging(server: MLLMServer) -> Iterator[None]:
    """Within this it reads requests and says nothing."""
    go_on = threading.Event()
    server.habits.meanwhile = lambda: go_on.wait(60) and None
    try:
        yield
    finally:
        server.habits.meanwhile = lambda: None
        go_on.set()


async def test_more_asks_than_there_are_connections_time_out_and_the_next_is_answered() -> None:
    with serving() as server:
        async with started(server, timeout_s=2.0) as mllm:
            before = (await mllm.ask(seconds(2, "0"), [GATE])).answers
            with hanging(server):
                asks = [mllm.ask(seconds(2, str(number)), [GATE]) for number in range(CONNECTIONS + 4)]
                ends = await asyncio.gather(*asks, return_exceptions=True)
            assert {type(end) for end in ends} == {MLLMTimeout}
            assert "2 seconds" in str(ends[0])
            assert mllm.counters.timed_out == CONNECTIONS + 4
            answers = await mllm.ask(seconds(2, "0"), [GATE])
            assert answers.answers == before
            assert len((await mllm.ask(seconds(2, "1"), [GATE])).answers) == 1


async def test_a_server_that_hangs_at_the_start_is_named_within_the_time() -> None:
    with serving() as server, hanging(server):
        mllm = OpenAIMLLM(server.url, MODEL, OpenAIConfig(use="openai:test", timeout_s=1.0))
        with pytest.raises(MLLMTimeout, match=rf"127\.0\.0\.1:{server.server_port} does not answer within 1 seconds"):
            await mllm.start()
        await mllm.close()
