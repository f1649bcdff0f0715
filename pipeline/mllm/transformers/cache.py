"""The model's cache of a prompt so far, and branching from it.

A branch is a copy of the cache that shares its keys and values; only a running state (linear attention) is really
copied. Nobody writes where another one may read, so whatever becomes of a branch, what it began from stays as it was.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from weakref import WeakSet

import torch
from transformers import DynamicCache, DynamicLayer, PreTrainedConfig

SPARE = 4
"""Memory for keys and values is larger than what it is made for by one part of so many."""
SPARE_TOKENS = 64
"""And by so many tokens at least."""


class _Memory:
    """Keys and values `[rows, heads, tokens, width]`, with room for more tokens, and the layers that read in them."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, tokens: int) -> None:
        room = tokens + max(tokens // SPARE, SPARE_TOKENS)
        self.keys, self.values = (part.new_empty(*part.shape[:-2], room, part.shape[-1]) for part in (keys, values))
        self.readers: WeakSet[SharingLayer] = WeakSet()


class SharingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # the library registers it, untyped
    """A layer of a cache that grows within memory which copies of it share: reading on copies no keys and values.

    It writes behind what it holds where no copy that is alive holds more, and else moves to memory of its own.
    """

    _memory: _Memory | None = None

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values of more tokens. Returns all that it holds."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        tokens = held + key_states.shape[-2]
        memory = self._memory if self._may_write(held, tokens) else self._moved(key_states, value_states, held, tokens)
        assert memory is not None
        memory.keys[..., held:tokens, :] = key_states
        memory.values[..., held:tokens, :] = value_states
        self.keys, self.values = memory.keys[..., :tokens, :], memory.values[..., :tokens, :]
        return self.keys, self.values

    def __deepcopy__(self, memo: dict[int, object]) -> "SharingLayer":
        """A layer that holds the same and shares the memory of it."""
        branch = copy.copy(self)
        if branch._memory:
            branch._memory.readers.add(branch)
        return branch

    def _may_write(self, held: int, tokens: int) -> bool:
        memory, keys = self._memory, self.keys
        if memory is None or keys is None or memory.keys.shape[-2] < tokens:
            return False
        if keys.data_ptr() != memory.keys.data_ptr():
            return False  # its rows were chosen anew, into tensors of their own
        return all(reader is self or reader.get_seq_length() <= held for reader in memory.readers)

    def _moved(self, keys: torch.Tensor, values: torch.Tensor, held: int, tokens: int) -> _Memory:
        if self._memory:
            self._memory.readers.discard(self)
        memory = self._memory = _Memory(keys, values, tokens)
        memory.readers.add(self)
        if held and self.keys is not None and self.values is not None:
            memory.keys[..., :held, :], memory.values[..., :held, :] = self.keys, self.values
        return memory


def empty_cache(config: PreTrainedConfig) -> DynamicCache:
    """A cache of nothing. Its layers of full attention are SharingLayers; those of other kinds are the library's."""
    cache = DynamicCache(config=config)
    cache.layers = [SharingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


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
    ]  # a sliding window's too: it never writes into them
    branch: DynamicCache = copy.deepcopy(cache, {id(tensor): tensor for tensor in shared})
    if copies > 1:
        branch.reorder_cache(torch.LongTensor([0] * copies))
    return branch
