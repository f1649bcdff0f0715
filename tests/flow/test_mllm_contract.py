"""What every multimodal LLM backend keeps to, shown on those that need no service."""

from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest

from pipeline.config.mllm import DetectorConfig, TinyConfig
from pipeline.mllm.base import MLLM
from pipeline.mllm.detector.backend import DetectorMLLM
from pipeline.mllm.null import NullMLLM
from pipeline.mllm.transformers.backend import TransformersMLLM
from tests.checkpoints import FAMILIES, tiny
from tests.detector import DigestNetworks
from tests.mllm_contract import *  # noqa: F403
from tests.mllm_contract import needs_eyes
from tests.services import require


@pytest.fixture(params=["null", "detector", *FAMILIES])
async def mllm(request: pytest.FixtureRequest) -> AsyncIterator[MLLM]:
    backend: MLLM
    if request.param == "null":
        backend = NullMLLM()
    elif request.param == "detector":
        backend = DetectorMLLM(DetectorConfig(use="detector:nowhere"), opened=lambda folder, threads: DigestNetworks())
    else:
        backend = TransformersMLLM(tiny(request.param), TinyConfig())
    await backend.start()
    yield backend
    await backend.close()


@pytest.fixture
def follows_schemas(mllm: MLLM) -> None:
    needs_eyes(mllm)
    if mllm.info.family == "detector":
        pytest.skip("a detector answers in single words")
    require(find_spec("xgrammar") is not None, "xgrammar keeps answers within a schema")
