"""The features of a question: its words, pairs of words and character n-grams, hashed."""

import re
import unicodedata
import zlib
from functools import lru_cache

MAX_WORDS = 64
"""Words of a question that are read; what follows is ignored."""

_GRAMS = (3, 4, 5)
_WORD = re.compile(r"\w+")


@lru_cache(maxsize=65_536)
def features(text: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Hash and weight of every feature of a text; words, pairs and n-grams weigh the same in sum.

    The hash is CRC-32 of UTF-8, the same in every process and on every machine. A text without words has one feature
    of its own.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())[:MAX_WORDS]
    pairs = [f"{a} {b}" for a, b in zip(["", *words], [*words, ""], strict=True)]
    framed = [f"<{word}>" for word in words]
    grams = [word[i : i + n] for word in framed for n in _GRAMS for i in range(len(word) - n + 1)]
    kinds = (("w", words or [""]), ("p", pairs if words else []), ("g", grams))
    found = [(f"{kind}:{part}", len(parts) ** -0.5) for kind, parts in kinds for part in parts]
    return tuple(zlib.crc32(name.encode()) for name, _ in found), tuple(weight for _, weight in found)
