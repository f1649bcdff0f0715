"""The form of requests that a server needs, found out before the first ask: the parameters that it takes, the way to
keep its model from thinking, and the token of an answer that is its yes or no.

Nothing of this is read from what a refusal says: each form is tried in turn, the usual one first.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from pipeline.errors import ConfigError
from pipeline.mllm.openai.refusals import Refused
from pipeline.mllm.openai.replies import Reply, verdict_in
from pipeline.mllm.openai.wire import SAMPLE_TOKENS, SWITCHES, Dialect
from pipeline.types import Json

TOPS = (20, 5)
"""How many of the likeliest tokens are asked for: OpenAI's most, and what many servers show at most."""

LEAD_TOKENS = 15
"""Before the token that answers, at most."""

QUESTIONS = ("Is this picture red?", "Is it day?")
"""Asked about a red picture: whether the answer is right does not matter, whether it is a yes or a no does."""

Ask = Callable[[str, Mapping[str, Json]], Awaitable[Reply]]
"""Asks one question about the test picture, to be answered in one way."""


@dataclass(frozen=True, slots=True)
class Manners:
    """The `dialect` of a server, and what is worth knowing of it, for people."""

    dialect: Dialect
    notes: tuple[str, ...] = ()


class Trial:
    """The tries with one server, shown as `where`. `more` is what its family is sent beside the usual; scores may come
    from `samples` answers where there are no log-probabilities, if that is not 0."""

    def __init__(self, ask: Ask, where: str, more: Mapping[str, Json], samples: int) -> None:
        self._ask, self._where, self._more, self._samples = ask, where, more, samples

    async def manners(self) -> Manners:
        """Raises ConfigError for a server that takes no question about a picture, gives no log-probabilities where
        they are needed, or whose model answers neither yes nor no; and what `ask` raises."""
        dialect, reply = await self._accepted()
        if dialect.top and reply.log_shares() is None:
            dialect = replace(dialect, top=0)
        notes: list[str] = []
        if not dialect.top:
            if not self._samples:
                raise ConfigError(
                    f"{self._where} gives no log-probabilities of the answer's first token (logprobs with top_logprobs"
                    f" {' or '.join(map(str, TOPS))}), without which there is no score; let it give them (vLLM:"
                    " --max-logprobs 20), use another, or set mllm.samples: 5 to score by the share of yes among as"
                    " many answers, each of which is a request"
                )
            dialect = replace(dialect, draws=self._samples)
            notes.append(f"no log-probabilities: a score is the share of yes among {self._samples} answers")
        elif self._samples:
            notes.append("log-probabilities are given, so no samples are taken (mllm.samples)")
        if dialect.top and reply.answer_place(0) == 0:
            return Manners(dialect, (*notes, *_notes(dialect, self._more)))
        for switch in (dialect.more, *(one for one in SWITCHES if one != dialect.more)):
            if found := await self._answering(replace(dialect, more=switch)):
                return Manners(found, (*notes, *_notes(found, self._more)))
        raise await self._no_answer(dialect)

    async def _accepted(self) -> tuple[Dialect, Reply]:
        """The first form of a request that it takes, with log-probabilities if it can be, and the reply."""
        refused: Refused | None = None
        for dialect in (*forms(self._more, TOPS), *forms(self._more, (0,))):
            try:
                return dialect, await self._ask(QUESTIONS[0], dialect.scored())
            except Refused as error:
                if not error.of_prompt and error.status < 500:
                    raise
                refused = refused or error
        assert refused is not None
        if refused.of_prompt:
            raise ConfigError(f"{self._where} does not take a question about a picture: {refused}") from refused
        raise refused

    async def _answering(self, dialect: Dialect) -> Dialect | None:
        """The dialect with which the model's answer is a yes or a no, and where that stands; None for none."""
        for question in QUESTIONS:
            try:
                if not dialect.top:
                    if verdict_in((await self._ask(question, dialect.spoken(SAMPLE_TOKENS))).text):
                        return dialect
                    continue
                longer = replace(dialect, lead=LEAD_TOKENS)
                place = (await self._ask(question, longer.scored())).answer_place(LEAD_TOKENS)
            except Refused:
                return None
            if place is not None:
                return replace(dialect, lead=place)
        return None

    async def _no_answer(self, dialect: Dialect) -> ConfigError:
        longer = replace(dialect, lead=LEAD_TOKENS)
        reply = await self._ask(QUESTIONS[0], longer.scored() if dialect.top else longer.spoken(1))
        asked = f"{self._where} was asked {QUESTIONS[0]!r} about a test picture, for yes or no,"
        if reply.thinks:
            tried = ", ".join(map(_spelled, SWITCHES[1:]))
            return ConfigError(
                f"{asked} and its model thinks first, whatever switch it is sent (tried: {tried}). Every answer would"
                " be unknown: start the server with thinking off, or use a model that answers at once (an Instruct one)"
            )
        return ConfigError(
            f"{asked} and its answer begins with {reply.begins[:40]!r}: every answer would be unknown. Use a model that"
            " answers at once (an Instruct one, not a Thinking one), with its own chat template"
        )


def forms(more: Mapping[str, Json], tops: tuple[int, ...]) -> Iterator[Dialect]:
    """Every form of a request, those first that differ least from the usual one."""
    usual = (tops[0], "max_tokens", True, more)
    others = product(tops, ("max_tokens", "max_completion_tokens"), (True, False), [more] if not more else [more, {}])
    for top, length, temperature, sent in sorted(
        others, key=lambda form: sum(one != other for one, other in zip(form, usual, strict=True))
    ):
        yield Dialect(length=length, top=top, temperature=temperature, more=sent)


def _notes(found: Dialect, more: Mapping[str, Json]) -> Iterator[str]:
    if found.more and found.more != more:
        yield f"its model is kept from thinking by {_spelled(found.more)}"
    if found.lead:
        yield f"an answer begins after {found.lead} tokens without a word"


def _spelled(switch: Mapping[str, Json]) -> str:
    """A switch as people write it: `chat_template_kwargs.enable_thinking: false`."""
    (name, value) = next(iter(switch.items()))
    if isinstance(value, Mapping):
        return f"{name}.{_spelled(value)}"
    return f"{name}: {str(value).lower()}"
