"""The address of an OpenAI-compatible server, its credentials, and what its model's name implies: values only, without
a connection."""

import json
import re
from urllib.parse import unquote, urlsplit

import httpx

from allocator_engine.grid import GRIDS
from pipeline.errors import ConfigError
from pipeline.redact import scrub

EXCERPT_CHARS = 200
"""Of what a server says, so much is shown."""

_READ_CHARS = 4096  # of what a server says, before it is looked through for credentials and cut
_PIECE = 3  # characters of a secret in a row that are never shown
_PATH_SECRET_CHARS = 8  # a part of the address's path from this length on may be a token
_PICTURE = re.compile(r"(?P<kind>data:[\w/+.-]+;base64,)[\w+/=]*")

_FAMILY_NAMES = (
    (re.compile(r"qwen[-_ ]?2[._]5[-_ ]?vl", re.IGNORECASE), "qwen2_5_vl"),
    (re.compile(r"qwen[-_ ]?3[-_ ]?vl", re.IGNORECASE), "qwen3_vl"),
    (re.compile(r"qwen[-_ ]?3[._]5", re.IGNORECASE), "qwen3_5"),
)


def checked_key(api_key: str | None) -> str | None:
    """The key. Raises ConfigError, which does not show it, for one that no HTTP header can carry."""
    if api_key is not None and not (api_key and api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ConfigError(
            "mllm.api_key is empty or has spaces, line ends or other characters that no HTTP header can carry"
        )
    return api_key


def host_of(url: str) -> str:
    """Scheme, host and port. Raises ConfigError for what is no HTTP address."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ConfigError("the address in mllm.use cannot be read; expected openai:URL#MODEL") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("the address in mllm.use is no HTTP address; expected openai:URL#MODEL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def family_of(model: str, given: str | None) -> str:
    """The family given, or else told by the model's name. Raises ConfigError if there is none, or an unknown one."""
    known = ", ".join(GRIDS)
    if given is not None:
        if given not in GRIDS:
            raise ConfigError(f"mllm.family is {given!r}; expected one of {known}")
        return given
    for pattern, family in _FAMILY_NAMES:
        if pattern.search(model):
            return family
    raise ConfigError(f"the name {model!r} does not tell the model's family; set mllm.family to one of {known}")


class Shown:
    """A server's words in the form that may be shown: on one line, cut, without the pictures that it sends back and
    without any part of the key or of the credentials in its address."""

    def __init__(self, url: str, api_key: str | None) -> None:
        parts = urlsplit(url)
        words = [part for part in parts.path.split("/") if len(part) >= _PATH_SECRET_CHARS]
        self._words = [*words, *map(unquote, words)]
        secrets = [api_key, parts.username, parts.password, parts.query, parts.fragment]
        found = {secret for secret in secrets if secret}
        found |= {unquote(secret) for secret in found} | {json.dumps(secret)[1:-1] for secret in found}
        self._whole = sorted((one for one in found if len(one) < _PIECE), key=len, reverse=True)
        self._pieces = frozenset(secret[at : at + _PIECE] for secret in found for at in range(len(secret) - _PIECE + 1))

    def __call__(self, text: str) -> str:
        text = _PICTURE.sub(r"\g<kind>***", text[: 16 * _READ_CHARS])[:_READ_CHARS]
        for word in (*self._words, *self._whole):
            text = text.replace(word, "***")
        text = "".join(character if character.isprintable() else " " for character in self._without_pieces(text))
        return scrub(" ".join(text.split()))[:EXCERPT_CHARS]

    def _without_pieces(self, text: str) -> str:
        """`text` with `***` for each run of characters that stand in a secret as they do here."""
        hidden = bytearray(len(text))
        for at in range(len(text) - _PIECE + 1):
            if text[at : at + _PIECE] in self._pieces:
                hidden[at : at + _PIECE] = b"\1" * _PIECE
        shown, before = [], 0
        for character, secret in zip(text, hidden, strict=True):
            if not secret:
                shown.append(character)
            elif not before:
                shown.append("***")
            before = secret
        return "".join(shown)
