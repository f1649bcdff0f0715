"""Interprets a server's replies. Whatever arrives is checked here: sizes of numbers, kinds of values, depth. Pure.

Source: the chat completions API of OpenAI; how others put an error into a reply of 200 is noted where it is read.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Literal

import pydantic_core
from pydantic import BaseModel, Field

from pipeline.types import Json

KNOWN_MASS = 0.5
"""Below this probability of yes and no together, a token is no answer; see `types.Answer`."""

_YES = frozenset({"yes", "是", "是的"})
_NO = frozenset({"no", "否", "不", "不是"})
_MEANT = ("不是", "否", "不", "没"), ("是",)  # how a Chinese answer without spaces begins: no, yes
_MARGINS = " \t\r\n.,;:!?。，；：！？'\"`*_#()[]{}<>|/-\u00a0\u200b\ufeff▁"
_THOUGHT = re.compile(r"<(?P<tag>think\w*|thought|reasoning)>.*?</(?P=tag)>", re.DOTALL | re.IGNORECASE)
_THINKING = re.compile(r"<(?:think\w*|thought|reasoning)>|<\|(?:channel|think\w*)\|>|◁think▷", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_LEAD = re.compile(r"(?:[\W_]|answer|assistant|答案)*", re.IGNORECASE)
_READ_CHARS = 4096  # of an answer, before it is looked through

_MOST_COUNTED = 1_000_000_000
_Count = Annotated[int, Field(ge=0, le=_MOST_COUNTED)]


class _Share(BaseModel):
    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None


class _Position(_Share):
    top_logprobs: list[_Share] | None = None


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Part(BaseModel):
    text: str | None = None


class _Message(BaseModel):
    content: str | list[_Part] | None = None
    reasoning_content: str | None = None  # vLLM, SGLang, DeepSeek
    reasoning: str | None = None  # OpenRouter, Ollama


class _Choice(BaseModel):
    message: _Message
    logprobs: _Logprobs | None = None


class _Details(BaseModel):
    cached_tokens: _Count | None = None


class _TokenCounts(BaseModel):
    prompt_tokens: _Count
    completion_tokens: object = None  # shown only: a count that is none costs no answer
    prompt_tokens_details: _Details | None = None


class Reply(BaseModel):
    """A chat completion, of which only what is used here is read."""

    model: str | None = None
    choices: list[_Choice] = Field(min_length=1)
    usage: _TokenCounts | None = None

    @property
    def text(self) -> str:
        """Its text, without a thought before it."""
        content = self.choices[0].message.content
        if isinstance(content, list):
            content = "".join(part.text or "" for part in content)
        text = (content or "").strip()
        thought = _THOUGHT.match(text[:_READ_CHARS])
        return text[thought.end() :].lstrip() if thought else text

    @property
    def thinks(self) -> bool:
        """True if it holds a thought, in a field of its own or in markup."""
        message = self.choices[0].message
        spelled = "".join(one.token for one in self._positions) + self.text
        return bool(message.reasoning_content or message.reasoning or _THINKING.search(spelled))

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; 0 where it does not count them."""
        return self.usage.prompt_tokens if self.usage else 0

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answer; 0 where it does not count them."""
        count = self.usage.completion_tokens if self.usage else None
        return count if type(count) is int and 0 <= count <= _MOST_COUNTED else 0

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that the server had in its cache; None where it does not count them."""
        details = self.usage.prompt_tokens_details if self.usage else None
        if details is None or details.cached_tokens is None:
            return None
        return min(details.cached_tokens, self.prompt_tokens)

    @property
    def begins(self) -> str:
        """Its first token, or its first word where it shows no tokens: for people."""
        positions = self._positions
        return positions[0].token if positions and positions[0].token else self.text.partition(" ")[0]

    @property
    def tokens(self) -> list[tuple[str, dict[str, float]]]:
        """Its tokens, and beside each the probabilities of the likeliest in its place; as they are meant."""
        found = []
        for position in self._positions:
            shares: dict[str, float] = {}
            for share in position.top_logprobs or []:
                if share.logprob is not None and not _impossible(share.logprob):
                    text = _spellings(share)[-1]
                    shares[text] = min(1.0, shares.get(text, 0.0) + math.exp(share.logprob))
            found.append((_spellings(position)[-1], shares))
        return found

    def log_shares(self, lead: int = 0) -> tuple[float, float] | None:
        """Log-probabilities of all spellings of yes, and of no, as the answer's first token; minus infinity for none.

        Up to `lead` tokens without a word (a line end, markup, an empty thought) may come before it. None if the reply
        holds no log-probabilities, or what cannot be any.
        """
        positions = self._positions[: lead + 1]
        tops = [position.top_logprobs or [] for position in positions]
        if not tops or not tops[0] or any(_impossible(share.logprob) for top in tops for share in top):
            return None
        place = self.answer_place(lead) or 0
        return _log_sum(tops[place], "yes"), _log_sum(tops[place], "no")

    def answer_place(self, lead: int) -> int | None:
        """The index of the answer among the first `lead` + 1 tokens; None if none is."""
        spelled = ""
        for place, position in enumerate(self._positions[: lead + 1]):
            top = [share for share in position.top_logprobs or [] if not _impossible(share.logprob)]
            known = _mass(top, "yes") + _mass(top, "no")
            if known >= KNOWN_MASS and is_lead(spelled):
                return place
            spelled += _spellings(position)[-1] if position.token else ""
        return None

    @property
    def _positions(self) -> list[_Position]:
        logprobs = self.choices[0].logprobs
        return (logprobs.content if logprobs else None) or []


class Model(BaseModel):
    """A model that a server lists: where its weights come from and its longest prompt, if the server tells."""

    id: str
    root: str | None = None
    max_model_len: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None


class ModelList(BaseModel):
    """The reply to GET /models."""

    data: list[Model]


Verdict = Literal["yes", "no"]


def verdict_of(token: str) -> Verdict | None:
    """The answer that one token stands for, whatever case, space or punctuation it comes with."""
    word = token.strip(_MARGINS).casefold()
    return "yes" if word in _YES else "no" if word in _NO else None


def verdict_in(text: str) -> Verdict | None:
    """The answer that the first word of a text stands for; None for another word, or for a thought without an end."""
    plain = _without_thought(text)
    if plain is None:
        return None
    lead = _LEAD.match(plain)
    rest = plain[lead.end() if lead else 0 :]
    if rest.startswith(_MEANT[0]):
        return "no"
    if rest.startswith(_MEANT[1]):
        return "yes"
    word = re.match(r"[^\W\d_]+", rest)
    return verdict_of(word[0]) if word else None


def is_lead(text: str) -> bool:
    """True if a text before an answer holds no words: line ends, markup, a finished thought."""
    plain = _without_thought(text)
    return plain is not None and _LEAD.fullmatch(plain) is not None


def _without_thought(text: str) -> str | None:
    """The text without markup and what was thought; None while the thought goes on."""
    plain = _THOUGHT.sub("", text[:_READ_CHARS])
    return None if _THINKING.search(plain) else _TAG.sub(" ", plain)


def parsed(body: bytes) -> Json:
    """The JSON in a body. Raises ValueError for what is none, and for one that is nested too deep."""
    value: Json = pydantic_core.from_json(body)
    return value


def error_in(fields: Json) -> Mapping[str, Json] | str | None:
    """The error that a reply reports, also with status 200: OpenRouter and LiteLLM answer so behind a gateway."""
    if not isinstance(fields, Mapping):
        return None
    if fields.get("object") == "error":  # LMDeploy, SGLang, FastChat
        return fields
    choices = fields.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    of_choice = first.get("error") if isinstance(first, Mapping) else None  # OpenRouter
    error = fields.get("error") or of_choice or (fields.get("detail") if choices is None else None)
    if error is None or isinstance(error, Mapping | str):
        return error or None
    return {"message": str(error)[:4096]} if error else None


def status_in(error: Mapping[str, Json] | str) -> int | None:
    """The HTTP status that an error in a reply of 200 names."""
    fields = error if isinstance(error, Mapping) else {}
    for name in ("code", "status", "status_code"):
        value = fields.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def words_in(body: bytes) -> str:
    """The message of an error reply; the whole body where none is found."""
    try:
        fields = parsed(body)
    except ValueError:
        return body.decode(errors="replace")
    error = error_in(fields)
    if error is None and isinstance(fields, Mapping):
        error = fields
    said = _message(error)
    return said or body.decode(errors="replace")


def _message(error: Mapping[str, Json] | str | None) -> str:
    if isinstance(error, str):
        return error
    for name in ("message", "msg", "detail", "error", "title"):
        value = (error or {}).get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _impossible(logprob: float | None) -> bool:
    return logprob is not None and (math.isnan(logprob) or logprob > 0.01)


def _log_sum(shares: Sequence[_Share], verdict: Verdict) -> float:
    mass = _mass(shares, verdict)
    return math.log(mass) if mass > 0 else -math.inf


def _mass(shares: Sequence[_Share], verdict: Verdict) -> float:
    means = (share for share in shares if share.logprob is not None and _means(share, verdict))
    return min(1.0, sum(math.exp(share.logprob or 0.0) for share in means))


def _means(share: _Share, verdict: Verdict) -> bool:
    return any(verdict_of(spelled) == verdict for spelled in _spellings(share))


def _spellings(share: _Share) -> list[str]:
    """Readings of a token: as it stands, as a byte-level vocabulary spells its pieces, and by its bytes."""
    return list(_readings(share.token, share.bytes))


def _readings(token: str, raw: list[int] | None) -> Iterator[str]:
    yield token
    table = _byte_of()
    if all(character in table for character in token):
        yield from _decoded([table[character] for character in token])
    yield from _decoded(raw or [])


def _decoded(raw: list[int]) -> Iterator[str]:
    if raw and len(raw) <= 256 and all(0 <= byte < 256 for byte in raw):
        try:
            yield bytes(raw).decode()
        except UnicodeDecodeError:
            return


@cache
def _byte_of() -> dict[str, int]:
    """The bytes that the characters of a byte-level vocabulary stand for: `Ġ` is a space, `æĺ¯` is 是.

    Source: the encoder of GPT-2, which Qwen's tokenizers share.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
