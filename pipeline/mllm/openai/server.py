"""The HTTP side of an OpenAI-compatible server: who answers there, within what time, and what its errors mean."""

import asyncio
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from pipeline.clock import Clock
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMUnavailable
from pipeline.mllm.openai.address import Shown, checked_key, host_of
from pipeline.mllm.openai.exchange import Exchange, Received
from pipeline.mllm.openai.refusals import BUSY, Refused, refusal, status_of
from pipeline.mllm.openai.replies import Model, ModelList, Reply, parsed, words_in
from pipeline.waiting import back_off_s, retry_after_s

TRIES = 4
"""How often a request is sent to a server that says it is busy."""
LEAST_PAUSE_S = 0.25
"""Between two tries, whatever a server says: Retry-After may be 0, or in the past."""

_ANY_MODEL = (
    "if it is the same model under another name, as behind a gateway, set mllm.any_model: true in the site file"
)


class Server:
    """One server, by the address of its API (`http://host:port/v1`), and one model there.

    `on_loss` is called when what the server has kept of earlier requests may be gone: its connection broke, or another
    model answers. With `any_model` whoever answers is believed to be the model. `retried` counts requests sent again to
    a busy server. The key is only ever in a header; of the address only the host is ever shown.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None,
        any_model: bool,
        timeout_s: float,
        clock: Clock,
        on_loss: Callable[[], None],
    ) -> None:
        self.where = host_of(url)
        self._model, self._any_model, self._keyed = model, any_model, api_key is not None
        self._clock, self._on_loss, self._timeout_s = clock, on_loss, timeout_s
        self._shown = Shown(url, checked_key(api_key))
        self._exchange = Exchange(
            url,
            self.where,
            key=api_key,
            timeout_s=timeout_s,
            shown=self._shown,
            on_connect=self._connected,
            on_loss=self._lost,
        )
        self._confirming = asyncio.Lock()
        self._opened = self._confirmed = 0  # connections whose other end was, and is known to be, the model met
        self._met = Model(id=model)
        self._names = {model}
        self.retried = 0

    def __repr__(self) -> str:
        return f"Server({self.where}, {self._model})"

    @property
    def doubted(self) -> bool:
        """True if a connection was opened or lost since the model was last seen behind it."""
        return self._opened != self._confirmed

    @property
    def longest_prompt(self) -> int | None:
        """Tokens of the longest prompt, where the server tells in its list of models."""
        return self._met.max_model_len

    async def meet(self) -> None:
        """Learn which model answers. Raises ConfigError listing the models there if ours is not among them."""
        models = await self._models()
        if self._model not in models and not self._any_model:
            raise ConfigError(
                f"mllm.use names the model {self._model!r}, which {self.where} does not serve; it serves"
                f" {self._shown(', '.join(sorted(models)) or 'none')}. Name one of them; {_ANY_MODEL}"
            )
        self._met = models.get(self._model, self._met)
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
            if not self._any_model and (found is None or found.root != self._met.root):
                raise self._another(f"it serves {', '.join(sorted(models)) or 'none'}", sent=False)
            self._confirmed = opened

    async def post(self, body: bytes, deadline_s: float, headers: Mapping[str, str] = {}) -> Reply:
        """One chat completion. A busy server is asked again, when and as often as it allows until `deadline_s`.

        Raises MLLMOverloaded, MLLMTimeout, Refused and MLLMUnavailable, each saying whether the request may have been
        worked on.
        """
        for number in range(1, TRIES + 1):
            received = await self._exchange("POST", "/chat/completions", body, headers)
            status = status_of(received)
            if status not in BUSY:
                break
            pause_s = retry_after_s(received.headers.get("Retry-After"), self._clock.now())
            pause_s = back_off_s(number, 0.5, 8.0) if pause_s is None else max(pause_s, LEAST_PAUSE_S)
            if number == TRIES or self._clock.monotonic_s() + pause_s >= deadline_s:
                raise MLLMOverloaded(
                    f"{self.where} is busy ({status}) and asks to wait {pause_s:.3g} s, after {number} of at most"
                    f" {TRIES} tries within timeout_s = {self._timeout_s:g} seconds",
                    sent=False,
                )
            self.retried += 1
            await self._clock.sleep(pause_s)
        if status // 100 == 2:
            return self._read(received.body)
        raise self._refusal(received, status)

    async def close(self) -> None:
        """Close every connection. May be repeated."""
        await self._exchange.close()

    async def _models(self) -> dict[str, Model]:
        received = await self._exchange("GET", "/models")
        status = status_of(received)
        if self._any_model and status // 100 == 4 and status not in (401, 403, 429):
            return {}
        if status == 404:
            raise Refused(
                f"{self.where} has no /models there (404); does the address end in /v1? If it has no such list, set"
                " mllm.any_model: true",
                status,
            )
        if status in BUSY:
            raise MLLMOverloaded(f"{self.where} is busy ({status}) and does not say which models it serves", sent=False)
        if status // 100 != 2:
            raise self._refusal(received, status)
        try:
            listed = parsed(received.body)
            listed = {"data": listed} if isinstance(listed, list) else listed
            return {model.id: model for model in ModelList.model_validate(listed).data}
        except ValueError as error:
            raise MLLMUnavailable(
                f"{self.where} answers /models with what is no list of models: {self._said(received.body)!r}",
                sent=False,
            ) from error

    def _connected(self) -> None:
        self._opened += 1

    def _lost(self) -> None:
        self._opened += 1
        self._on_loss()

    def _read(self, answer: bytes) -> Reply:
        try:
            reply = Reply.model_validate_json(answer)
        except ValidationError as error:
            raise MLLMUnavailable(
                f"{self.where} answers 200 with what is no chat completion{_fault(error)}: {self._said(answer)!r}"
            ) from error
        if not self._any_model and reply.model is not None and reply.model not in self._names:
            raise self._another(f"the answer comes from {reply.model}", sent=True)
        return reply

    def _another(self, found: str, sent: bool) -> MLLMUnavailable:
        self._lost()
        return MLLMUnavailable(
            f"another model answers behind {self.where}: {self._shown(found)}; expected {self._model}; {_ANY_MODEL}",
            sent=sent,
        )

    def _refusal(self, received: Received, status: int) -> Refused:
        if status != 404:
            return refusal(received, status, self.where, self._keyed, self._shown)
        self._lost()  # whoever answers now, it is not the model that was met
        said = self._said(received.body)
        return Refused(f"another model answers behind {self.where}: {self._model} is unknown (404: {said!r})", 404)

    def _said(self, body: bytes) -> str:
        return self._shown(words_in(body))


def _fault(error: ValidationError) -> str:
    """The place where a reply differs from a chat completion, without its content; empty for what is no JSON object."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:80]
    return f" ({place}: {first['msg'][:80]})" if place else ""
