"""The settings of the multimodal LLM: those of its kind, which stands before the colon of `use`.

A key that the kind does not use is refused. The defaults are here and nowhere else: backends take these objects.
"""

from dataclasses import field, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag
from pydantic.dataclasses import dataclass

from allocator_engine.fit import FitRules
from allocator_engine.grid import GRIDS
from pipeline.config.values import STRICT, Count, Positive
from pipeline.errors import ConfigError
from pipeline.redact import redact_mllm

MLLM_CHOICES = "yard, transformers:PATH_OR_NAME, vllm:PATH_OR_NAME, openai:URL#MODEL, detector:FOLDER, tiny or null"

_FIT = FitRules(GRIDS["qwen3_vl"])
_TAKEN = {"authorization", "accept-encoding", "connection", "content-length", "content-type", "cookie", "host"}


def _header(name: str) -> str:
    """A header's name. Raises ValueError for one that requests have already."""
    if name.lower() in _TAKEN:
        raise ValueError("expected the name of a header that requests do not have yet, such as x-user-id")
    return name


HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$"), AfterValidator(_header)]


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class SegmentConfig:
    """Settings of every kind: how frames become segments. `frames_per_segment` None: two where the model takes video,
    one where it takes images only. Tokens are vision tokens."""

    use: str
    frames_per_segment: Literal[1, 2] | None = None
    min_tokens_per_segment: Count = _FIT.min_tokens_per_segment
    max_tokens_per_segment: Count = _FIT.max_tokens_per_segment


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class NullConfig(SegmentConfig):
    """`null`: looks at nothing, for benchmarks."""

    use: str = "null"


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class DetectorConfig(SegmentConfig):
    """`detector:FOLDER`: a detector's networks in a folder, computed on `threads` CPU threads each."""

    threads: Annotated[int, Field(ge=1, le=256)] = 1


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class ModelConfig(SegmentConfig):
    """Bounds of every kind that runs a model: an ask ends after `timeout_s` seconds; with `max_queue` asks unfinished
    another is refused; prefixes are kept of `max_streams` streams; a prompt with its answer has `max_prompt_tokens`."""

    timeout_s: Positive = 60.0
    max_queue: Count = 64
    max_streams: Count = 64
    max_prompt_tokens: Annotated[int, Field(ge=256)] = 32_768


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class CachedConfig(ModelConfig):
    """A kind that counts its kept prefixes by tokens: `max_cache_tokens` prompt tokens of all streams together."""

    max_cache_tokens: Count = 131_072


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class EmbeddedConfig(CachedConfig):
    """A model in this process: `device` and `dtype` are torch's names or "auto", `threads` its CPU threads; None: one
    beside live streams, and in a process that only plays recordings one for each core, at most eight."""

    device: str = "auto"
    dtype: str = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] | None = None


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class YardConfig(EmbeddedConfig):
    """`yard`: the small shipped one, which knows its own demo world only."""

    use: str = "yard"


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class TransformersConfig(EmbeddedConfig):
    """`transformers:PATH_OR_NAME`: a checkpoint, run by transformers."""


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class TinyConfig(EmbeddedConfig):
    """`tiny` or `tiny:FAMILY`: random weights, whose answers mean nothing."""

    use: str = "tiny"


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class VllmConfig(ModelConfig):
    """`vllm:PATH_OR_NAME`: a checkpoint, run by an engine beside this process. `dtype` is vLLM's name or "auto";
    `kv_cache_gib` (GiB) bounds its cache, else `gpu_memory` (0 to 1) is the part of the GPU it may take;
    `picture_cache_gib` (GiB) bounds the host memory in which its processes keep pictures."""

    dtype: str = "auto"
    kv_cache_gib: Positive | None = None
    picture_cache_gib: Positive = 1.0
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.85


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class OpenAIConfig(CachedConfig):
    """`openai:http://HOST:PORT/v1#MODEL`: a server. `api_key` should be a reference, `family` is needed where the
    model's name does not tell it; `any_model` believes the replies of whatever model they name, as a gateway names the
    one behind it; `samples` is how many answers make a score where the server gives no log-probabilities (0: such a
    server is refused).

    `servers` are addresses of further servers of the same model (`http://HOST:PORT/v1`): a stream keeps to one of them.
    `session_header` names a header in which a router finds the stream's session (a hash of its name)."""

    api_key: str | None = field(default=None, repr=False)
    family: str | None = None
    any_model: bool = False
    samples: Annotated[int, Field(ge=0, le=32)] = 0
    servers: Annotated[tuple[str, ...], Field(max_length=63)] = field(default=(), repr=False)
    session_header: HeaderName | None = None


def mllm_kind(value: object) -> str:
    """The kind of an `mllm` mapping. Raises ConfigError for one that is not known."""
    use = value.get("use") if isinstance(value, dict) else getattr(value, "use", None)
    if not isinstance(use, str):
        return "yard"
    kind = use.partition(":")[0]
    if kind not in ("yard", "transformers", "vllm", "openai", "detector", "tiny", "null"):
        raise ConfigError(f"mllm.use is {redact_mllm(use)!r}; expected {MLLM_CHOICES}")
    return kind


MLLMConfig = Annotated[
    Annotated[YardConfig, Tag("yard")]
    | Annotated[TransformersConfig, Tag("transformers")]
    | Annotated[VllmConfig, Tag("vllm")]
    | Annotated[OpenAIConfig, Tag("openai")]
    | Annotated[DetectorConfig, Tag("detector")]
    | Annotated[TinyConfig, Tag("tiny")]
    | Annotated[NullConfig, Tag("null")],
    Discriminator(mllm_kind),
]
"""The settings of one kind. Another kind is another class, a line here and a case in `build.build_mllm`."""


def patient(config: MLLMConfig, least_s: float) -> MLLMConfig:
    """The settings with at least `least_s` seconds for an ask, where an ask has a bound at all."""
    return (
        config
        if isinstance(config, NullConfig | DetectorConfig)
        else replace(config, timeout_s=max(config.timeout_s, least_s))
    )
