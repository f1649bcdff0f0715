"""Keeps answers in words within a JSON schema, token by token. The door to xgrammar, which vLLM uses as well."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.errors import ConfigError
from pipeline.types import Json

if TYPE_CHECKING:
    from xgrammar import CompiledGrammar, GrammarCompiler

MAX_CACHE_BYTES = 64 * 2**20
"""Memory for compiled schemas."""

_CONTROLS = frozenset(map(chr, range(0x100, 0x120)))
"""How byte-level tokenizers write the bytes 0 to 31."""


class GrammarMask:
    """The state of a schema's answers, and the tokens that may come next in each."""

    def __init__(self, grammar: "CompiledGrammar", vocabulary: int, answers: int) -> None:
        import xgrammar

        self._vocabulary = vocabulary
        self._matchers = [xgrammar.GrammarMatcher(grammar) for _ in range(answers)]

    def apply(self, logits: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
        """`logits` `[rows, vocabulary]` with minus infinity where a token would break the schema; row by row those of
        these answers."""
        import xgrammar

        allowed = xgrammar.allocate_token_bitmask(len(answers), self._vocabulary)
        for row, answer in enumerate(answers):
            self._matchers[answer].fill_next_token_bitmask(allowed, row)
        masked = logits.to("cpu", torch.float32, copy=True)
        xgrammar.apply_token_bitmask_inplace(masked, allowed, vocab_size=self._vocabulary)
        return masked

    def accept(self, answer: int, token: int) -> None:
        """The answer goes on with this token, which `apply` has allowed."""
        accepted = self._matchers[answer].accept_token(token)
        assert accepted, (answer, token)


class Grammars:
    """Compiles JSON schemas for a byte-level tokenizer, such as all of the Qwen families have.

    `vocabulary` is the width of the model's logits, `end` the token that ends an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, end: int) -> None:
        self._tokenizer, self._vocabulary, self._end = tokenizer, vocabulary, end
        self._compiler: GrammarCompiler | None = None

    def mask(self, schema: Mapping[str, Json], answers: int) -> GrammarMask:
        """The mask of so many answers, none of which has begun.

        Raises ConfigError for a schema that cannot be compiled, and when the package xgrammar is absent.
        """
        self._compiler = self._compiler or self._make_compiler()
        try:
            grammar = self._compiler.compile_json_schema(json.dumps(schema), any_whitespace=False)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().rpartition("] ")[2]
            raise ConfigError(f"the JSON schema {schema!r} cannot be followed: {reason}") from error
        return GrammarMask(grammar, self._vocabulary, answers)

    def _make_compiler(self) -> "GrammarCompiler":
        try:
            import xgrammar
        except ImportError as error:
            raise ConfigError(
                "answers that follow a JSON schema need the package xgrammar; install it, or ask without a schema"
            ) from error
        words = [""] * self._vocabulary
        special = self._tokenizer.get_added_vocab()  # type: ignore[no-untyped-call]
        # An empty word is never said: no placeholder of a picture inside a string, and no control character, which
        # JSON wants escaped there (RFC 8259, 7) and a schema with a `maxLength` would let through.
        for word, token in self._tokenizer.get_vocab().items():
            if token < self._vocabulary and word not in special and not _CONTROLS & set(word):
                words[token] = word
        known = xgrammar.TokenizerInfo(
            words, xgrammar.VocabType.BYTE_LEVEL, vocab_size=self._vocabulary, stop_token_ids=[self._end]
        )
        return xgrammar.GrammarCompiler(known, max_threads=1, cache_limit_bytes=MAX_CACHE_BYTES)
