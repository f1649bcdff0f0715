"""Answers in words: the likeliest token at each step, for many questions on one prefix at once."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch

from pipeline.mllm.transformers.cache import PackedQuestions, Prefix
from pipeline.mllm.transformers.grammar_mask import GrammarMask
from pipeline.mllm.transformers.reader import PromptReader
from pipeline.types import Json

_Read: TypeAlias = Callable[[Mapping[int, Sequence[int]]], torch.Tensor]
"""Reads more tokens of some questions; logits `[of those questions, vocabulary]` of what comes next in each."""


def say(
    reader: PromptReader,
    prefix: Prefix,
    questions: Sequence[Sequence[int]],
    most: int,
    schema: Mapping[str, Json] | None,
    in_time: Callable[[], None],
) -> list[str]:
    """Each question's answer after `prefix`, which stays as it is, until the turn ends or `most` tokens are said.

    Under a JSON schema only tokens that follow it are said. `in_time` is called before each step and may raise. Raises
    ConfigError as `Grammars.mask` does.
    """
    said: list[str] = []
    for group in reader.groups(questions, growth=most):
        mask = reader.grammars.mask(schema, len(group)) if schema is not None else None
        read = _continued(reader, prefix, len(group))
        said += map(reader.text, _greedy(read, group, reader.end, most, mask, in_time))
    return said


def _continued(reader: PromptReader, prefix: Prefix, questions: int) -> _Read:
    """Continues each of so many questions behind `prefix`: in one packed row, or in a branch of its own."""
    if reader.packs:
        return partial(reader.read_row, PackedQuestions(prefix, questions))
    branches = [prefix.branch() for _ in range(questions)]
    return lambda more: torch.stack([reader.read_on(branches[index], tokens) for index, tokens in more.items()])


def _greedy(
    read: _Read,
    questions: Sequence[Sequence[int]],
    end: int,
    most: int,
    mask: GrammarMask | None,
    in_time: Callable[[], None],
) -> list[list[int]]:
    said: list[list[int]] = [[] for _ in questions]
    more: dict[int, Sequence[int]] = dict(enumerate(questions))
    for _ in range(most):
        if not more:
            break
        in_time()
        logits = read(more)
        if mask:
            logits = mask.apply(logits, list(more))
        chosen = dict(zip(more, logits.argmax(dim=-1).tolist(), strict=True))
        if mask:
            for index, token in chosen.items():
                mask.accept(index, token)
        more = {index: [token] for index, token in chosen.items() if token != end}
        for index in more:
            said[index].append(chosen[index])
    return said
