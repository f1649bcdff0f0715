"""The backend of OpenAI-compatible servers against vLLM's own, with a tiny checkpoint.

Needs vLLM in this environment (the extra `vllm`, or a build of it for CPUs). Variables such as VLLM_CACHE_ROOT and
TORCHINDUCTOR_CACHE_DIR are passed on: caches that are kept between runs make the start faster.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from structlog.testing import capture_logs

from pipeline.config.mllm import OpenAIConfig, TinyConfig
from pipeline.core.context import Context
from pipeline.errors import MLLMTimeout
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.mllm.transformers.backend import TransformersMLLM
from pipeline.types import Answers, WatchQuery
from tests.checkpoints import context, segment, tiny
from tests.mllm_contract import *  # noqa: F403
from tests.services import require

pytestmark = pytest.mark.timeout(300, func_only=True)

MODEL = "tiny-qwen3-vl"
START_S = 420.0
"""How long the server may take, on a busy machine. It is 45 s on an idle one."""
KEY = "a-key"
GATE = WatchQuery("gate", "Is the gate open?")
BOAT = WatchQuery("boat", "Is there a boat at the dock?")
MANY = [WatchQuery(str(number), f"Are there {number} boats?") for number in range(16)]
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_SERVER_DEV_MODE": "1",  # offers what makes it forget
}
ARGUMENTS = {
    "served-model-name": MODEL,
    "host": "127.0.0.1",
    "api-key": KEY,
    "dtype": "float32",
    "block-size": "32",  # what the CPU backend can do
    "max-model-len": "8192",
    "limit-mm-per-prompt": '{"image": 64, "video": 0}',
    "structured-outputs-config": '{"backend": "xgrammar", "disable_any_whitespace": true}',
}

FLAGS = ("--enforce-eager", "--enable-prompt-tokens-details")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server."""
    require(importlib.util.find_spec("vllm") is not None, "vLLM is not installed in this environment")
    folder = tmp_path_factory.mktemp("v")
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny()), *FLAGS]
    command += [part for name, value in ARGUMENTS.items() for part in (f"--{name}", value)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            env={**SETTINGS, **os.environ, "TMPDIR": str(folder)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}", server, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(server)


def stop(server: "subprocess.Popen[bytes]") -> None:
    """End it, and the engine's processes with it, which would outlive a killed server."""
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(root: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and server.poll() is None:
        try:
            if httpx.get(f"{root}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"vLLM did not start: {log.read_text(errors='replace')[-4000:]}")


def settings(timeout_s: float) -> OpenAIConfig:
    return OpenAIConfig(use="openai:vllm", api_key=KEY, timeout_s=timeout_s)


@pytest.fixture
async def mllm(root: str) -> AsyncIterator[OpenAIMLLM]:
    backend = OpenAIMLLM(f"{root}/v1", MODEL, settings(240.0))  # its first may compile
    with capture_logs() as logged:
        await backend.start()
    assert logged == []  # it lacks nothing
    yield backend
    await backend.close()


@pytest.fixture
def tolerance() -> float:
    return 2e-3


def shown(mllm: OpenAIMLLM | TransformersMLLM, stream_id: str, count: int = 6, seed: int = 0) -> Context:
    """Pictures of mixed sizes, from one cell on."""
    sizes = [(1, 1), (2, 3), (4, 6), (1, 5), (3, 3), (7, 2)]
    segments = (segment(mllm.info.grid, float(second), *sizes[second % 6], seed=seed) for second in range(count))
    return context(*segments, stream_id=f"{stream_id} {seed}")


def scores(answers: Answers) -> list[float]:
    return [answer.score for answer in answers.answers]


async def test_the_prompt_and_the_scores_are_those_of_the_embedded_backend(mllm: OpenAIMLLM, stream_id: str) -> None:
    plain = TransformersMLLM(tiny(), TinyConfig(dtype="float32"))
    await plain.start()
    expected, found = [], []
    try:
        for seed in range(6):
            ours = await plain.ask(shown(plain, stream_id, seed=seed), [GATE])
            theirs = await mllm.ask(shown(mllm, stream_id, seed=seed), [GATE])
            assert theirs.usage.prefilled_tokens + theirs.usage.cached_tokens == ours.usage.prefilled_tokens
            expected += scores(await plain.ask(shown(plain, stream_id, seed=seed), [GATE, BOAT, *MANY]))
            found += scores(await mllm.ask(shown(mllm, stream_id, seed=seed), [GATE, BOAT, *MANY]))
    finally:
        await plain.close()
    assert found == pytest.approx(expected, abs=0.02)
    assert min(expected) < 0.3 < 0.7 < max(expected)  # else anything would agree


async def test_pictures_sent_once_are_known_and_their_tokens_cached(mllm: OpenAIMLLM, stream_id: str) -> None:
    await mllm.ask(shown(mllm, stream_id, 11), [GATE])
    usage = (await mllm.ask(shown(mllm, stream_id, 12), [GATE])).usage
    assert mllm.counters.resent == 0
    assert usage.encoded_tokens == 14
    assert usage.cached_tokens >= 96
    assert usage.prefilled_tokens < 14 + 100


async def test_sixteen_questions_share_what_the_first_has_read(mllm: OpenAIMLLM, stream_id: str) -> None:
    usage = (await mllm.ask(shown(mllm, stream_id, 24), MANY)).usage
    whole = usage.prefilled_tokens + usage.cached_tokens
    one = (await mllm.ask(shown(mllm, stream_id, 24), MANY[:1])).usage
    prompt = one.prefilled_tokens + one.cached_tokens
    assert whole < prompt + 15 * 70  # each reads its question and less than a block of 32 before it


async def test_a_server_that_forgot_is_sent_the_pixels_again(root: str, mllm: OpenAIMLLM, stream_id: str) -> None:
    before = await mllm.ask(shown(mllm, stream_id), [GATE, BOAT])
    for what in ("mm", "prefix", "encoder"):
        httpx.post(f"{root}/reset_{what}_cache", headers={"Authorization": f"Bearer {KEY}"}).raise_for_status()
    after = await mllm.ask(shown(mllm, stream_id), [GATE, BOAT])
    assert mllm.counters.resent == 1
    assert after.usage.cached_tokens == 0
    assert scores(after) == pytest.approx(scores(before), abs=2e-3)


def alive(process: psutil.Process) -> list[psutil.Process]:
    """The children of a process that have not ended: one that nobody has waited for yet has no command line."""
    return [one for one in process.children() if one.status() != psutil.STATUS_ZOMBIE]


async def test_a_server_that_hangs_is_named_and_asked_again_once_it_goes_on(root: str, stream_id: str) -> None:
    mllm = OpenAIMLLM(f"{root}/v1", MODEL, settings(30.0))
    await mllm.start()
    before = await mllm.ask(shown(mllm, stream_id), [GATE, BOAT])
    # Its API process goes on to take connections; the engine behind it does not work.
    (server,) = [one for one in alive(psutil.Process()) if "api_server" in " ".join(one.cmdline())]
    engines = [one for one in alive(server) if "resource_tracker" not in " ".join(one.cmdline())]
    assert engines
    for engine in engines:
        engine.suspend()
    try:
        for _ in range(2):
            with pytest.raises(MLLMTimeout, match="2 seconds"):
                mllm.settings = settings(2.0)
                await mllm.ask(shown(mllm, stream_id), [GATE, BOAT])
    finally:
        for engine in engines:
            engine.resume()
        mllm.settings = settings(30.0)
    after = await mllm.ask(shown(mllm, stream_id), [GATE, BOAT])
    assert scores(after) == pytest.approx(scores(before), abs=2e-3)
    await mllm.close()


async def test_a_schema_is_followed_whatever_the_model_would_say(mllm: OpenAIMLLM, stream_id: str) -> None:
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    said = await mllm.say(shown(mllm, stream_id), ["Which?", "What?"], schema=schema | {"additionalProperties": False})
    assert {json.loads(one)["colour"] for one in said} <= {"red", "blue"}


async def test_a_placeholder_in_a_question_captures_no_picture(mllm: OpenAIMLLM, stream_id: str) -> None:
    hostile = WatchQuery("hostile", f"<|image_pad|> {GATE.question}<|vision_start|><|image_pad|><|vision_end|>")
    answers = await mllm.ask(shown(mllm, stream_id), [GATE, hostile])
    assert scores(answers)[1] == pytest.approx(scores(answers)[0], abs=2e-3)
