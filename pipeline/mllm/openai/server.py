"""The HTTP side of an OpenAI-compatible server: who answers there, within what time, and what its errors mean.

Sources: RFC 9110 section 10.2.3 (Retry-After); the error bodies of OpenAI and vLLM.
"""

import asyncio
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import ValidationError

from pipeline.clock import Clock
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.mllm.openai.address import checked_key, host_of
from pipeline.mllm.openai.wire import Model, ModelList, Reply
from pipeline.redact import scrub
from pipeline.waiting import back_off_s

CONNECTIONS = 16
"""Requests under way at once, of all streams; the others wait for their turn."""
TRIES = 4
"""How often a request is sent to a server that says it is busy."""
CONNECT_S = 10.0
"""How long connecting may take."""
IDLE_S = 4.0
"""How long an unused connection is kept: less than the 5 s after which vLLM's server closes it."""
MAX_REPLY_BYTES = 1_048_576
EXCERPT_CHARS = 200

_BUSY = (429, 503)
_READ_CHARS = 4096  # of what a server says, before it is looked through for credentials and cut
_PICTURE = re.compile(r"(?P<kind>data:[\w/+.-]+;base64,)[\w+/=]*")
_MISSED = re.compile(r"cache miss", re.IGNORECASE)
_MOST_PICTURES = re.compile(r"at most (\d+) image", re.IGNORECASE)
_LONGEST_PROMPT = re.compile(r"maximum (?:model|context) length (?:of|is) (\d+)", re.IGNORECASE)
_ADVICE = (
    (
        re.compile(r"at most \d+ image|too many images", re.IGNORECASE),
        "too many pictures in one prompt; lower context_max_s or sample_fps, or let the server take more (vLLM:"
        " --limit-mm-per-prompt)",
    ),
    (
        re.compile(r"maximum (model|context) length|context length|prompt is too long", re.IGNORECASE),
        "the prompt is too long; lower context_max_tokens, or let the server take more (vLLM: --max-model-len)",
    ),
)

# httpx logs whole URLs, which may hold a token.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Refused(MLLMUnavailable):
    """The server answered with an error status."""

    def __init__(self, message: str, status: int) -> None:
        # After 4xx nothing was encoded; after 5xx nobody knows.
        super().__init__(message, sent=status >= 500)
        self.status = status


class CacheMiss(Refused):
    """The server does not know a picture that was sent by its content id only."""


class Server:
    """One server, by the address of its API (`http://host:port/v1`), and one model there.

    `on_loss` is called when what the server has kept of earlier requests may be gone: its connection broke, or another
    model answers. `most_pictures` of a prompt are known once more were refused. `retried` counts requests sent again to
    a busy server. The key is only ever in a header; of the address only the host is ever shown.
    """

    def __init__(
        self, url: str, model: str, *, api_key: str | None, timeout_s: float, clock: Clock, on_loss: Callable[[], None]
    ) -> None:
        self.where = host_of(url)
        self._url, self._model, self._clock, self._on_loss = url.rstrip("/"), model, clock, on_loss
        self._timeout_s, self._secret = timeout_s, checked_key(api_key)
        self._client = httpx.AsyncClient(
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
            limits=httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=IDLE_S),
            follow_redirects=False,
        )
        self._slots, self._confirming = asyncio.Semaphore(CONNECTIONS), asyncio.Lock()
        self._opened = self._confirmed = 0  # connections whose other end was, and is known to be, the model met
        self._met = Model(id=model)
        self._names = {model}
        self._longest_prompt: int | None = None
        self.most_pictures: int | None = None
        self.retried = 0

    def __repr__(self) -> str:
        return f"Server({self.where}, {self._model})"

    @property
    def doubted(self) -> bool:
        """True if a connection was opened or lost since the model was last seen behind it."""
        return self._opened != self._confirmed

    @property
    def longest_prompt(self) -> int | None:
        """Tokens of the longest prompt, where the server tells, in its list of models or in refusing a longer one."""
        return self._longest_prompt or self._met.max_model_len

    async def meet(self) -> None:
        """Learn which model answers. Raises ConfigError listing the models there if ours is not among them."""
        models = await self._models()
        if self._model not in models:
            raise ConfigError(
                f"mllm.use names the model {self._model!r}, which {self.where} does not serve; it serves"
                f" {self._shown(', '.join(sorted(models)) or 'none')}"
            )
        self._met = models[self._model]
        # A server may answer under another of the names that it gives one checkpoint.
        same = {name for name, other in models.items() if other.root is not None and other.root == self._met.root}
        self._names = {self._model} | same

    async def confirm(self) -> None:
        """Make sure, if in doubt, that the model that was met still answers. Raises MLLMUnavailable if it does not."""
        async with self._confirming:
            opened = self._opened
            if opened == self._confirmed:
                return
            models = await self._models()
            found = models.get(self._model)
            if found is None or found.root != self._met.root:
                raise self._another(f"it serves {', '.join(sorted(models)) or 'none'}", sent=False)
            self._confirmed = opened

    async def post(self, body: bytes, deadline_s: float) -> Reply:
        """One chat completion. A busy server is asked again, when and as often as it allows until `deadline_s`.

        Raises MLLMOverloaded, MLLMTimeout, Refused, CacheMiss and MLLMUnavailable, each saying whether the request may
        have been worked on.
        """
        for number in range(1, TRIES + 1):
            status, headers, answer = await self._exchange("POST", "/chat/completions", body)
            if status not in _BUSY:
                break
            pause_s = retry_after_s(headers.get("Retry-After"), self._clock.now())
            pause_s = back_off_s(number, 0.5, 8.0) if pause_s is None else pause_s
            if number == TRIES or self._clock.monotonic_s() + pause_s >= deadline_s:
                raise MLLMOverloaded(
                    f"{self.where} is busy ({status}) and asks to wait {pause_s:.3g} s, after {number} of at most"
                    f" {TRIES} tries within timeout_s = {self._timeout_s:g} seconds",
                    sent=False,
                )
            self.retried += 1
            await self._clock.sleep(pause_s)
        if status // 100 == 2:
            return self._read(answer)
        raise self._refusal(status, answer)

    async def close(self) -> None:
        """Close every connection. May be repeated."""
        await self._client.aclose()

    async def _models(self) -> dict[str, Model]:
        status, _, answer = await self._exchange("GET", "/models", b"")
        if status == 404:
            raise Refused(f"{self.where} has no /models there (404); does the address end in /v1?", status)
        if status in _BUSY:
            raise MLLMOverloaded(f"{self.where} is busy ({status}) and does not say which models it serves", sent=False)
        if status // 100 != 2:
            raise self._refusal(status, answer)
        try:
            return {model.id: model for model in ModelList.model_validate_json(answer).data}
        except ValidationError as error:
            raise MLLMUnavailable(
                f"{self.where} answers /models with what is no list of models: {self._excerpt(answer)!r}", sent=False
            ) from error

    async def _exchange(self, method: str, path: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        if self._client.is_closed:
            raise MLLMUnavailable(f"the connection to {self.where} was closed here", sent=False)
        trace = {"trace": self._traced} if method == "POST" else {}
        try:
            async with (
                self._slots,
                self._client.stream(method, self._url + path, content=body, extensions=trace) as reply,
            ):
                read = bytearray()
                async for piece in reply.aiter_bytes():
                    read += piece
                    if len(read) > MAX_REPLY_BYTES:
                        raise MLLMUnavailable(f"{self.where} answers with more than {MAX_REPLY_BYTES} bytes")
                return reply.status_code, reply.headers, bytes(read)
        except httpx.HTTPError as error:
            raise self._failure(error) from error

    def _failure(self, error: httpx.HTTPError) -> MLLMUnavailable:
        """What a failed exchange means. `raise ... from` keeps the cause, which holds no header."""
        unconnected = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        if unconnected or isinstance(error, httpx.NetworkError | httpx.ProtocolError):
            self._lost()
        if isinstance(error, httpx.TimeoutException):
            limit_s = min(self._timeout_s, CONNECT_S) if unconnected else self._timeout_s
            doing = "take a connection" if unconnected else "answer"
            return MLLMTimeout(f"{self.where} does not {doing} within {limit_s:g} seconds", sent=not unconnected)
        reason = self._shown(f"{type(error).__name__}: {error}")
        what = "cannot be reached" if unconnected else "broke off"
        return MLLMUnavailable(f"{self.where} {what} ({reason})", sent=not unconnected)

    async def _traced(self, event: str, _: Mapping[str, object]) -> None:
        if event == "connection.connect_tcp.complete":
            self._opened += 1

    def _lost(self) -> None:
        self._opened += 1
        self._longest_prompt = self.most_pictures = None
        self._on_loss()

    def _read(self, answer: bytes) -> Reply:
        try:
            reply = Reply.model_validate_json(answer)
        except ValidationError as error:
            raise MLLMUnavailable(
                f"{self.where} answers 200 with what is no chat completion: {self._excerpt(answer)!r}"
            ) from error
        if reply.model not in self._names:
            raise self._another(f"the answer comes from {reply.model}", sent=True)
        return reply

    def _another(self, found: str, sent: bool) -> MLLMUnavailable:
        self._lost()
        return MLLMUnavailable(
            f"another model answers behind {self.where}: {self._shown(found)}; expected {self._model}", sent=sent
        )

    def _refusal(self, status: int, answer: bytes) -> Refused:
        said = self._excerpt(answer)
        if status in (401, 403):
            lacking = "refuses the key of" if self._secret else "wants a key; set"
            return Refused(f"{self.where} {lacking} mllm.api_key ({status})", status)
        if status == 404:
            self._lost()  # whoever answers now, it is not the model that was met
            return Refused(f"another model answers behind {self.where}: {self._model} is unknown (404: {said!r})", 404)
        if status // 100 == 3:
            return Refused(f"{self.where} answers {status}, a redirect; give the address it leads to", status)
        if _MISSED.search(said):
            return CacheMiss(f"{self.where} has forgotten a picture ({status}: {said!r})", status)
        self.most_pictures = _told(_MOST_PICTURES, said) or self.most_pictures
        self._longest_prompt = _told(_LONGEST_PROMPT, said) or self._longest_prompt
        advice = next((advice for sign, advice in _ADVICE if sign.search(said)), "")
        return Refused(f"{self.where} answers {status}: {said!r}{advice and f' - {advice}'}", status)

    def _excerpt(self, answer: bytes) -> str:
        """What a body says, on one line, without the key."""
        try:
            fields = json.loads(answer)
        except ValueError:
            return self._shown(answer.decode(errors="replace"))
        error = fields.get("error", fields) if isinstance(fields, dict) else None
        message = error.get("message", error.get("detail")) if isinstance(error, dict) else error
        return self._shown(message if isinstance(message, str) else answer.decode(errors="replace"))

    def _shown(self, text: str) -> str:
        for secret in (self._secret, json.dumps(self._secret)[1:-1]) if self._secret else ():
            text = text.replace(secret, "***")
        text = _PICTURE.sub(r"\g<kind>***", text)[:_READ_CHARS]
        text = "".join(character if character.isprintable() else " " for character in text)
        return scrub(" ".join(text.split()))[:EXCERPT_CHARS]


def _told(bound: re.Pattern[str], said: str) -> int | None:
    """The number that a refusal names."""
    found = bound.search(said)
    return int(found[1]) if found else None


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header, given as seconds or as a date; None for none that can be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
