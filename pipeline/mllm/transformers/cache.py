"""The model's cache of a prompt so far, and branching from it.

A branch is a copy of the cache that shares its keys and values, because a cache never writes into them; only a running
state (linear attention) is really copied. So whatever becomes of a branch, what it began from stays as it was.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature

import torch
from transformers import DynamicCache


def continuing(model: torch.nn.Module, cache: DynamicCache) -> dict[str, object]:
    """Arguments for a transformers model beside its input, so that it goes on from `cache` and adds to it: the name of
    that argument depends on the installed version."""
    return {_name(type(model).forward): cache, "use_cache": True}


@lru_cache(maxsize=16)
def _name(forward: Callable[..., object]) -> str:
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


@dataclass(slots=True)
class Prefix:
    """A prompt so far: the model's cache of it, tokens in it, and the position that comes next."""

    cache: DynamicCache
    tokens: int = 0
    position: int = 0

    def branch(self) -> "Prefix":
        """A prompt that begins as this one; reading on in it leaves this one as it is."""
        return Prefix(branched(self.cache), self.tokens, self.position)


class PackedQuestions:
    """Questions, and what is answered to them, packed behind a branch of a prefix: each sees the prefix and itself."""

    def __init__(self, prefix: Prefix, questions: int) -> None:
        self.branch = prefix.branch()
        self._lengths = [0] * questions
        self._owners: list[int] = []

    def add(self, more: Mapping[int, Sequence[int]]) -> tuple[list[int], torch.Tensor]:
        """Add so many tokens to some of the questions: the position of each, and a bool mask `[added, prompt]`."""
        where: list[int] = []
        for question, tokens in more.items():
            first = self.branch.position + self._lengths[question]
            where += range(first, first + len(tokens))
            self._lengths[question] += len(tokens)
            self._owners += [question] * len(tokens)
        owners = torch.tensor(self._owners)
        own = (owners[-len(where) :, None] == owners[None, :]).tril(len(owners) - len(where))
        return where, torch.cat([own.new_ones(len(where), self.branch.tokens), own], dim=1)


def branched(cache: DynamicCache, copies: int = 1) -> DynamicCache:
    """A cache that begins with `copies` of what `cache` (of one row) holds; writing to it leaves `cache` as it is."""
    shared = [
        tensor
        for layer in cache.layers
        for name in ("keys", "values")
        if isinstance(tensor := getattr(layer, name, None), torch.Tensor)
    ]
    branch: DynamicCache = copy.deepcopy(cache, {id(tensor): tensor for tensor in shared})
    if copies > 1:
        branch.reorder_cache(torch.LongTensor([0] * copies))
    return branch
