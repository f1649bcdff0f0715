"""Servers' wordings for a prompt that is too large. They give a hint and advice, and are never the mechanism: see
`limits.py`.

This is the one place that knows the English of particular servers. A server with other words is served as well; it only
takes a refusal more until it is known what was too large.
"""

import re

from pipeline.mllm.openai.limits import Hint

_PICTURES = re.compile(
    r"at most (?P<a>\d+) image"  # vLLM before its engine V1
    r"|set [`'\"]?image=(?P<b>\d+)"  # vLLM's engine V1: "You set image=4 in `--limit-mm-per-prompt`"
    r"|limit-mm-per-prompt|limit-mm-data-per-request"  # vLLM, SGLang: the options
    r"|too many images|number of images|images? per (?:prompt|request)|max(?:imum)? (?:of )?(?P<c>\d+) images?",
    re.IGNORECASE,
)
_TOKENS = re.compile(
    r"context[- _](?:length|size|window)|max(?:imum)? (?:model|sequence|input) length|max_model_len"  # vLLM, SGLang
    r"|prompt is too long|too many tokens|`?inputs`? tokens|exceed[s_]context"  # Ollama, gateways, TGI, llama.cpp
    r"|input is too long|token limit",
    re.IGNORECASE,
)
_READ_CHARS = 4096
_TOO_MANY_PICTURES = (
    "too many pictures in one prompt; lower context_max_s or sample_fps, or let the server take more (vLLM:"
    " --limit-mm-per-prompt)"
)
_TOO_LONG = "the prompt is too long; lower context_max_tokens, or let the server take more (vLLM: --max-model-len)"


def hint_of(said: str) -> Hint:
    """The bound that the words of a refusal name, if they are known."""
    said = said[:_READ_CHARS]
    if found := _PICTURES.search(said):
        number = next((group for group in found.groups() if group), None)
        return Hint("pictures", int(number) if number and len(number) < 9 else None)
    return Hint("tokens") if _TOKENS.search(said) else Hint()


def advice_on(said: str) -> str:
    """Advice on what to change after a refusal; empty for unknown words."""
    return {"pictures": _TOO_MANY_PICTURES, "tokens": _TOO_LONG}.get(hint_of(said).measure or "", "")
