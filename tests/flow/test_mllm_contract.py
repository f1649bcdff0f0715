"""What every multimodal LLM backend keeps to, shown on those that need no service."""

from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest

from pipeline.config.mllm import TinyConfig
from pipeline.mllm.base import MLLM
from pipeline.mllm.null import NullMLLM
from pipeline.mllm.transformers.backend import TransformersMLLM
from tests.checkpoints import FAMILIES, tiny
from tests.mllm_contract import *  # noqa: F403
from tests.mllm_contract import needs_eyes
from tests.services import require


@pytest.fixture(params=["null", *FAMILIES])
async def mllm(request: pytest.FixtureRequest) -> AsyncIterator[MLLM]:
    backend = NullMLLM() if request.param == "null" else TransformersMLLM(tiny(request.param), TinyConfig())
    await backend.start()
    yield backend
    await backend.close()


@pytest.fixture
def follows_schemas(mllm: MLLM) -> None:
    needs_eyes(mllm)
    require(find_spec("xgrammar") is not None, "xgrammar keeps answers within a schema")
