"""Slugs for people's words: readable, unique, and the same for the same words in the same order."""

import re
import unicodedata
from collections.abc import Container
from pathlib import PurePosixPath
from urllib.parse import unquote

from pipeline.redact import HIDDEN, redact_url
from pipeline.urls import REFERENCE

LONGEST = 48
"""Characters of a slug before the number that tells it from others."""

_PLAIN = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})
_MODEST = 3
"""A name with fewer letters than this says too little by itself."""


def slug_of(text: str, otherwise: str) -> str:
    """`text` in lower-case letters, digits and hyphens; `otherwise` where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", text.casefold().translate(_PLAIN)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST].strip("-") or otherwise


def unique_slug(text: str, otherwise: str, taken: Container[str]) -> str:
    """As `slug_of`, with the first number from 2 on that makes it differ from those that are taken."""
    slug, number = slug_of(text, otherwise), 2
    numbered = slug
    while numbered in taken:
        numbered, number = f"{slug}-{number}", number + 1
    return numbered


def stream_slug(source: str) -> str:
    """A name for the stream of a URL or path: that of its file, and of its host where the file's says too little."""
    shown = redact_url(REFERENCE.sub("", source))
    scheme, mark, behind = shown.partition("://")
    if not mark:
        scheme, mark, behind = "", "", "/" + source.removeprefix("file:").removeprefix("v4l2:")
    elif scheme.lower() == "file":
        mark, behind = "", source.partition("://")[2]
    authority, _, path = behind.partition("/")
    path = path if not mark else path.partition("?")[0]
    name = PurePosixPath(unquote(path) if scheme else path).stem.replace(HIDDEN, "")
    host = re.sub(r":\d+$", "", authority.rpartition("@")[2]).replace(HIDDEN, "")
    if mark and sum(letter.isalpha() for letter in name) < _MODEST:
        name = f"{host} {name}"
    return slug_of(name, "stream")
