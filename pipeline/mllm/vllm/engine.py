"""vLLM's asynchronous engine, whose core runs in processes of its own. The only module that imports vLLM.

A prompt's shared part is prepared once (`read`); the questions are then requests that differ in their last tokens.
"""

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError, VLLMServerError
from vllm.multimodal.inputs import MultiModalKwargsItems
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.utils.async_utils import cancel_task_threadsafe
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from pipeline.errors import ConfigError, EngineMismatch, MLLMUnavailable
from pipeline.mllm.vllm.asking import VllmReply
from pipeline.mllm.vllm.prompt import VllmPrompt
from pipeline.mllm.vllm.settings import SamplingOptions, Settings, arguments
from pipeline.mllm.vllm.supervisor import EngineGone

CLOSE_S = 15.0
"""Seconds that an engine's processes have to end."""


@dataclass(frozen=True, slots=True)
class ReadyPrompt:
    """A prompt with its pictures made ready. `again` is the same without the pictures, which travel once."""

    first: Mapping[str, object]
    again: Mapping[str, object]


class VllmEngine:
    """A started engine. Raises EngineGone once its processes have died."""

    def __init__(self, llm: AsyncLLM) -> None:
        self.llm = llm
        self._numbers = count()
        self.on_cpu = bool(current_platform.is_cpu())
        cache = llm.vllm_config.cache_config
        self.block_tokens: int = cache.block_size
        self.cache_tokens: int = cache.kv_cache_size_tokens or cache.num_gpu_blocks * cache.block_size

    @property
    def dead(self) -> bool:
        """True if its processes have died."""
        return bool(self.llm.errored)

    @property
    def unfinished(self) -> int:
        """Requests under way."""
        return int(self.llm.get_num_unfinished_requests())

    async def read(self, prompt: VllmPrompt) -> ReadyPrompt:
        """Make a prompt ready: only pictures that the engine has not seen are processed. Nothing is sent yet.

        Raises EngineMismatch if vLLM makes other tokens of it than were meant.
        """
        asked: dict[str, object] = {"prompt_token_ids": prompt.sent}
        if prompt.pictures:
            asked |= {"multi_modal_data": prompt.pictures, "multi_modal_uuids": prompt.names}
        try:
            (ready,) = await self.llm.renderer.render_cmpl_async([asked])
        except ValueError as error:
            raise EngineMismatch(
                f"vLLM does not take a prompt: {error}; use a version that the package names"
            ) from error
        if ready["prompt_token_ids"] != prompt.ids:
            raise EngineMismatch(
                f"vLLM reads a prompt as {len(ready['prompt_token_ids'])} tokens, which are not the {len(prompt.ids)}"
                " meant; use a version of vllm and transformers that the package names"
            )
        if not prompt.pictures:
            return ReadyPrompt(ready, ready)
        empty = MultiModalKwargsItems({kind: [None] * len(items) for kind, items in ready["mm_kwargs"].items()})
        return ReadyPrompt(ready, {**ready, "mm_kwargs": empty})

    async def reply(
        self, read: ReadyPrompt, questions: Sequence[Sequence[int]], how: SamplingOptions, heard: Callable[[], None]
    ) -> list[VllmReply]:
        """The replies to all questions (token ids) behind one prompt, in order. `heard` is called at each, as it comes.
        What is not finished when this is cancelled or fails is aborted. Raises ConfigError for a request that vLLM does
        not take, and MLLMUnavailable for one that it does not answer."""
        prompts = [read.first, *[read.again] * (len(questions) - 1)]
        sampling = _sampling(how)
        requests = [
            asyncio.create_task(self._request(prompt, question, sampling, heard))
            for prompt, question in zip(prompts, questions, strict=True)
        ]
        try:
            return list(await asyncio.gather(*requests))
        finally:
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)

    async def _request(
        self, prompt: Mapping[str, object], question: Sequence[int], sampling: SamplingParams, heard: Callable[[], None]
    ) -> VllmReply:
        ids = prompt["prompt_token_ids"]
        assert isinstance(ids, list)
        asked = {**prompt, "prompt_token_ids": [*ids, *question]}
        try:
            async for output in self.llm.generate(asked, sampling, str(next(self._numbers))):
                heard()
                return _reply(output)
        except EngineDeadError as error:
            raise EngineGone("vLLM's engine has died") from error
        except VLLMClientError as error:
            raise ConfigError(f"vLLM refuses it: {error}") from error
        except VLLMServerError as error:
            raise MLLMUnavailable(f"vLLM failed to answer: {error.__cause__ or error}") from error
        raise MLLMUnavailable("vLLM ended a request without an answer")

    def close(self) -> None:
        """Stop its processes. Blocks, for CLOSE_S seconds at most before they are killed."""
        if self.llm.output_handler is not None:
            # Otherwise it reports the end of the processes as their failure.
            cancel_task_threadsafe(self.llm.output_handler)
        self.llm.shutdown(timeout=CLOSE_S)
        # It refers to itself in a circle; collected at the end of this process, it would complain.
        del self.llm
        gc.collect()


def _sampling(how: SamplingOptions) -> SamplingParams:
    schema = StructuredOutputsParams(json=dict(how.schema)) if how.schema is not None else None
    return SamplingParams(
        temperature=0.0,
        max_tokens=how.most,
        logprob_token_ids=list(how.watched) or None,
        structured_outputs=schema,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _reply(output: RequestOutput) -> VllmReply:
    said, metrics = output.outputs[0], output.metrics
    if said.finish_reason == "error":
        return VllmReply(lost=True)
    first = said.logprobs[0] if said.logprobs else {}
    return VllmReply(
        words=said.text.strip(),
        shares={token: share.logprob for token, share in first.items()},
        prompt_tokens=len(output.prompt_token_ids),
        cached_tokens=output.num_cached_tokens or 0,
        answer_tokens=len(said.token_ids),
        queued_s=metrics.scheduled_ts - metrics.queued_ts if metrics else 0.0,
        first_token_s=metrics.first_token_ts - metrics.scheduled_ts if metrics else 0.0,
    )


def open_engine(settings: Settings) -> VllmEngine:
    """Start an engine and its processes. Blocks for as long as the weights take.

    Raises ConfigError for what vLLM refuses to take, EngineMismatch for what it cannot start.
    """
    try:
        config = AsyncEngineArgs(**arguments(settings, current_platform.is_cpu())).create_engine_config()
    except ValueError as error:
        raise ConfigError(f"vLLM refuses the checkpoint {settings.folder} or its settings: {error}") from error
    try:
        return VllmEngine(AsyncLLM.from_vllm_config(config))
    except (RuntimeError, ValueError, OSError) as error:
        raise EngineMismatch(
            f"vLLM cannot start on {settings.folder}: {error}; its own lines above say more. Of memory it takes what"
            " mllm.kv_cache_gib and mllm.gpu_memory say, and it must hold one prompt of mllm.max_prompt_tokens"
        ) from error
