"""What is written to an OpenAI-compatible server and what its answers mean. Pure: no network.

Source: the chat completions API of OpenAI; `uuid` beside `image_url`, and null pixels under a known one, are vLLM's.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
from pydantic import BaseModel, Field

from allocator_engine.resize import Pixels
from pipeline.mllm.prompt import INSTRUCTION, NO, TURN_END, YES, Text, looks, suffix
from pipeline.types import Json, Segment

SCORED: Mapping[str, Json] = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20}
"""How a score is asked for: the likeliest first tokens and their probabilities, without a grammar."""

_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]
_TEMPLATE: Mapping[str, Mapping[str, Json]] = {"qwen3_5": {"chat_template_kwargs": {"enable_thinking": False}}}


def spoken(most: int, schema: Mapping[str, Json] | None) -> Mapping[str, Json]:
    """How an answer in words is asked for: greedy, at most `most` tokens, as JSON that follows `schema` if given."""
    how: dict[str, Json] = {"max_tokens": most, "temperature": 0}
    if schema is not None:
        how["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    return how


def question_line(question: str) -> str:
    """The question as the prompt of every backend words it, without the chat markup, which the server writes.

    Raises ConfigError for a question that is empty or too long.
    """
    return suffix(question, "qwen3_vl").text.partition(TURN_END)[0]


def data_url(pixels: Pixels) -> str:
    """One picture, uint8 `[height, width, 3]` RGB, as a lossless PNG in a `data:` URL."""
    written, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _FAST)
    assert written, pixels.shape
    return f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"


@dataclass(frozen=True, slots=True)
class Wording:
    """How a server is addressed: the model's name there, its family, and whether pictures go by their content id."""

    model: str
    family: str
    uuids: bool = False


class Requests:
    """The requests of one ask: one per question, all behind the same pictures. Each picture is encoded once."""

    def __init__(self, wording: Wording, segments: Sequence[Segment], anchor_s: float, how: Mapping[str, Json]) -> None:
        self._wording, self._segments, self._anchor_s, self._how = wording, segments, anchor_s, how
        self._urls: dict[str, str] = {}

    def body(self, line: str, known: int = 0) -> bytes:
        """The request for one question, given as `question_line` words it. The first `known` pictures go without
        their pixels, where this server knows pictures by their content id."""
        content: list[Json] = []
        for number, segment in enumerate(self._segments):
            for part in looks([segment], self._anchor_s):
                with_pixels = number >= known or not self._wording.uuids
                if isinstance(part, Text):
                    content.append({"type": "text", "text": part.text})
                else:
                    content.append(self._image(segment, with_pixels))
        content.append({"type": "text", "text": line})
        request: dict[str, Json] = {
            "model": self._wording.model,
            "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": content}],
            **self._how,
            **_TEMPLATE.get(self._wording.family, {}),
        }
        return json.dumps(request).encode()

    def _image(self, segment: Segment, with_pixels: bool) -> dict[str, Json]:
        image: dict[str, Json] = {"type": "image_url", "image_url": None}
        if with_pixels:
            image["image_url"] = {"url": self._url(segment)}
        if self._wording.uuids:
            image["uuid"] = segment.content_id
        return image

    def _url(self, segment: Segment) -> str:
        if segment.content_id not in self._urls:
            self._urls[segment.content_id] = data_url(segment.pixels[0])
        return self._urls[segment.content_id]


class _Share(BaseModel):
    token: str
    logprob: float


class _Position(BaseModel):
    top_logprobs: list[_Share] = []


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    logprobs: _Logprobs | None = None


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    prompt_tokens_details: _Details | None = None


class Reply(BaseModel):
    """A chat completion, of which only what is used here is read."""

    model: str
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage

    @property
    def text(self) -> str:
        return (self.choices[0].message.content or "").strip()

    @property
    def prompt_tokens(self) -> int:
        return self.usage.prompt_tokens

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that the server had in its cache; None where it does not count them."""
        details = self.usage.prompt_tokens_details
        return details.cached_tokens if details else None

    def log_shares(self) -> tuple[float, float] | None:
        """Log-probabilities of all spellings of yes, and of no, as the first token; minus infinity for none seen.

        None if the reply holds no log-probabilities, or what cannot be any.
        """
        logprobs = self.choices[0].logprobs
        first = logprobs.content[0].top_logprobs if logprobs and logprobs.content else []
        if not first or any(math.isnan(share.logprob) or share.logprob > 0.01 for share in first):
            return None
        return _log_sum(first, YES.__contains__), _log_sum(first, NO.__contains__)


class Model(BaseModel):
    """A model that a server lists: where its weights come from and its longest prompt, if the server tells."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class ModelList(BaseModel):
    """The reply to GET /models."""

    data: list[Model]


def _log_sum(shares: Sequence[_Share], spells: Callable[[str], bool]) -> float:
    mass = sum(math.exp(share.logprob) for share in shares if spells(share.token))
    return math.log(mass) if mass > 0 else -math.inf
