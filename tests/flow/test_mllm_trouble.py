"""A stream goes on through whatever its MLLM's server does: hops are skipped by name, no state is lost, and silence is
never taken for a no."""

import threading
from collections.abc import Callable, Iterator

import pytest

from pipeline.config.mllm import OpenAIConfig
from pipeline.core.context import Context, ContextRules
from pipeline.core.hops import HopRules
from pipeline.core.state import StreamRun
from pipeline.loop import Runtime, watch_stream
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.testing import ScriptedSource
from pipeline.types import WatchQuery
from tests.flow.test_loop import CAR, build, seconds
from tests.mllm_server import MODEL, MLLMServer, Turn, serving

TIMEOUT_S = 2.0


@pytest.fixture
def server() -> Iterator[MLLMServer]:
    with serving() as running:
        running.habits.share = 0.9
        yield running


def busy(server: MLLMServer) -> None:
    server.habits.next.append(Turn(429, headers={"Retry-After": "3600"}))


def failing(server: MLLMServer) -> None:
    server.habits.next.append(Turn(500, b"the engine died"))


def garbled(server: MLLMServer) -> None:
    server.habits.next.append(Turn(200, b"<html>no</html>"))


def without_probabilities(server: MLLMServer) -> None:
    server.habits.next.append(
        Turn(
            200,
            b'{"model": "%s", "choices": [{"message": {"content": "no"}}], "usage": {"prompt_tokens": 9}}'
            % MODEL.encode(),
        )
    )


def breaking_off(server: MLLMServer) -> None:
    server.habits.next.append(lambda handler: handler.break_off())


def swapped(server: MLLMServer) -> None:
    server.habits.share, server.habits.answers_as = 0.1, "tiny-llama"


def too_slow(server: MLLMServer) -> None:
    server.habits.meanwhile = lambda: threading.Event().wait(TIMEOUT_S + 0.5) and None


def restarted(server: MLLMServer) -> None:
    server.forget()
    server.hang_up()


TROUBLES = {
    busy: "MLLMOverloaded",
    failing: "Refused",
    garbled: "MLLMUnavailable",
    without_probabilities: "MLLMUnavailable",
    breaking_off: "MLLMUnavailable",
    swapped: "MLLMUnavailable",
    too_slow: "MLLMTimeout",
}


async def watched(server: MLLMServer, trouble: Callable[[MLLMServer], None]) -> tuple[StreamRun, Runtime]:
    """Three seconds of stream, one second of trouble, and three seconds after it."""
    mllm = OpenAIMLLM(server.url, MODEL, OpenAIConfig(use="openai:test", timeout_s=TIMEOUT_S))
    await mllm.start()
    _, runtime = build(CAR, mllm=mllm)  # type: ignore[arg-type]
    run = StreamRun("yard", HopRules(), Context.empty("yard", ContextRules()))
    await watch_stream(run, ScriptedSource(seconds(3)), runtime)
    trouble(server)
    await watch_stream(run, ScriptedSource(seconds(1, start=3)), runtime)
    server.habits.answers_as, server.habits.share, server.habits.meanwhile = None, 0.9, lambda: None
    server.habits.next.clear()
    await watch_stream(run, ScriptedSource(seconds(3, start=4)), runtime)
    await mllm.close()
    return run, runtime


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__)
async def test_a_hop_in_trouble_is_skipped_by_name_and_the_watch_stays_open(
    server: MLLMServer, trouble: Callable[[MLLMServer], None]
) -> None:
    run, runtime = await watched(server, trouble)
    assert [event.type for event in runtime.outbox.events] == ["watch.opened"]
    assert run.state.watches[CAR.key].is_open
    assert run.counts.skipped == 1
    assert runtime.metrics.value("hops_skipped_total", stream="yard", reason=TROUBLES[trouble]) == 1
    assert run.counts.answers == 6
    assert run.context.segments[-1].pts_s[-1] == 6.5


async def test_a_server_that_has_forgotten_everything_is_told_again_and_misses_no_hop(server: MLLMServer) -> None:
    run, runtime = await watched(server, restarted)
    assert [event.type for event in runtime.outbox.events] == ["watch.opened"]
    assert run.counts.answers >= 6
    assert run.state.watches[CAR.key].is_open


async def test_a_watch_in_a_language_that_the_model_does_not_know_is_unknown_and_opens_and_clears_nothing(
    server: MLLMServer,
) -> None:
    mllm = OpenAIMLLM(server.url, MODEL, OpenAIConfig(use="openai:test"))
    await mllm.start()
    server.habits.mass, server.habits.share = 0.3, 0.02
    question = "フォークリフトの近くに人がいますか？"
    run, runtime = build(WatchQuery("truck", question), mllm=mllm)  # type: ignore[arg-type]
    await watch_stream(run, ScriptedSource(seconds(4)), runtime)
    await mllm.close()
    assert runtime.outbox.events == []
    assert (run.counts.answers, run.counts.unknown) == (4, 4)
    assert server.asked[-1].line == f"Question: {question}"
