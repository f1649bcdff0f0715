"""The requests that are sent to an OpenAI-compatible server. Pure: no network.

Source: the chat completions API of OpenAI; `uuid` beside `image_url`, and null pixels under a known one, are vLLM's.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from allocator_engine.resize import Pixels
from pipeline.mllm.png import png
from pipeline.mllm.prompt import INSTRUCTION, TURN_END, Text, looks, suffix
from pipeline.types import Json, Segment

SAMPLE_TOKENS = 16
"""Of an answer that is read as a sample."""

THINKING_OFF: Mapping[str, Json] = {"chat_template_kwargs": {"enable_thinking": False}}
"""vLLM's, SGLang's and llama.cpp's switch for a model that may think before it answers."""

SWITCHES: tuple[Mapping[str, Json], ...] = (
    {},
    THINKING_OFF,
    {"reasoning_effort": "none"},  # OpenAI, Ollama, OpenRouter, LiteLLM
    {"chat_template_kwargs": {"thinking": False}},  # templates of DeepSeek and Granite
    {"enable_thinking": False},  # DashScope, SiliconFlow
    {"thinking": {"type": "disabled"}},  # GLM, Doubao
    {"reasoning": {"enabled": False}},  # OpenRouter
)
"""How servers are asked not to let a model think; the first does not mention it."""

THINKS: Mapping[str, Mapping[str, Json]] = {"qwen3_5": THINKING_OFF}
"""Families that think unless they are told not to."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A server's form of requests: the name of the bound on an answer's tokens, the likeliest tokens that it shows (0:
    none, so that scores are shares of `draws` answers), whether it takes a temperature, and what else it is sent.

    `lead` tokens at most come before the one that answers: a line end, markup, an empty thought.
    """

    length: str = "max_tokens"
    top: int = 20
    temperature: bool = True
    more: Mapping[str, Json] = field(default_factory=dict)
    lead: int = 0
    draws: int = 1

    def scored(self, sample: int = 0, more: int = 0) -> Mapping[str, Json]:
        """Request fields that ask for a score: the likeliest first tokens, and those of `more` behind them, with their
        probabilities, without a grammar; or one of `draws` answers, each drawn anew."""
        if not self.top:
            temperature: Mapping[str, Json] = {"temperature": 1} if self.temperature else {}
            return {self.length: SAMPLE_TOKENS, "seed": sample, **temperature, **self.more}
        return {**self._greedy(self.lead + 1 + more), "logprobs": True, "top_logprobs": self.top}

    def spoken(self, most: int, schema: Mapping[str, Json] | None = None) -> Mapping[str, Json]:
        """Request fields that ask for an answer in words: greedy, at most `most` tokens, as JSON that follows a given
        `schema`."""
        how = self._greedy(most + self.lead)
        if schema is not None:
            how["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            }
        return how

    def _greedy(self, most: int) -> dict[str, Json]:
        temperature: Mapping[str, Json] = {"temperature": 0} if self.temperature else {}
        return {self.length: most, **temperature, **self.more}


SCORED = Dialect().scored()
"""How a score is asked for where nothing is known of the server."""


def question_line(question: str, hint: str = "") -> str:
    """The question as the prompt of every backend words it, without the chat markup, which the server writes.

    Raises ConfigError for a question that is empty or too long.
    """
    return suffix(question, "qwen3_vl", hint).text.partition(TURN_END)[0]


def data_url(pixels: Pixels) -> str:
    """One picture, uint8 `[height, width, 3]` RGB, as a lossless PNG in a `data:` URL."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


@dataclass(frozen=True, slots=True)
class Wording:
    """The form of a prompt: the model's name on the server, and whether pictures go by their content id."""

    model: str
    uuids: bool = False


class Requests:
    """The requests of one ask: one per question, all behind the same pictures. Each picture is encoded once."""

    def __init__(self, wording: Wording, segments: Sequence[Segment], anchor_s: float) -> None:
        self._wording, self._segments, self._anchor_s = wording, segments, anchor_s
        self._urls: dict[str, str] = {}

    @property
    def by_name(self) -> bool:
        """True if pictures can go by their content id alone."""
        return self._wording.uuids

    def body(self, line: str, how: Mapping[str, Json], known: int = 0) -> bytes:
        """The request for one question, worded as `question_line` does, to be answered as `how` says. The first `known`
        pictures go without their pixels, where this server knows pictures by their content id."""
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
            **how,
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
