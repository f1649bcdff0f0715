"""Credentials out of text. Everything that shows a URL to a person or a log goes through here.

Two things keep a secret out. What was read from a `${...}` or out of a URL is known, and is replaced wherever it
stands. What is not known is recognised by where it stands in a URL, rather too much of it than too little: where a URL
can be read in several ways, nothing is shown that is a part of a password by one of them.
"""

import json
import re
import threading
import traceback
from urllib.parse import quote, quote_plus

from pipeline.urls import REFERENCE, UrlReading, choose, is_sure, readings

HIDDEN = "***"

SHORTEST_SECRET = 3
"""Characters. What is shorter is no secret, and stands in every word."""

MOST_SECRETS = 4096
"""How many secrets are known at most; the oldest go first. A site has a few for each camera."""

_LONGEST = 4096
_SCHEME = re.compile(r"[\w+.%-]{0,32}$")
_CLOSING = {quote: re.compile(rf"(?<!\\){quote}(?=[,}}\])\s:;.]|$)") for quote in "\"'"}
_SPACE = re.compile(r"\s|$")
_TRAILING = re.compile(r"['\"<>)\]},;.:]{0,4}$")
_NAMED = re.compile(r"(?P<name>(?:pass(?:word|wd|phrase)?|pwd|token|secret|api_?key)=)[^\s&?#]+", re.IGNORECASE)
_MLLM = "openai:"
_MODEL = re.compile(r"[\w./:+#-]{1,128}")
_NO_SCHEME = re.compile(r"^(?://)?[^/\s:]*:.*@", re.DOTALL)


class KnownSecrets:
    """The secrets of this process, in every form in which they are written. Used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: dict[str, None] = {}
        self._forms: tuple[str, ...] = ()  # the longest first, for a short one may be a part of it

    def add(self, secret: str) -> None:
        if len(secret) < SHORTEST_SECRET or secret in self._secrets:
            return
        with self._lock:
            self._secrets[secret] = None
            forms = {*self._forms, *_forms(secret)}
            if len(self._secrets) > MOST_SECRETS:
                del self._secrets[next(iter(self._secrets))]
                forms = {form for one in self._secrets for form in _forms(one)}
            self._forms = tuple(sorted(forms, key=len, reverse=True))

    def clear(self) -> None:
        with self._lock:
            self._secrets.clear()
            self._forms = ()

    def hide(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, HIDDEN)
        return text


known = KnownSecrets()
"""What this process was given as secrets."""


def remember(secret: str) -> None:
    """From now on `scrub` hides `secret` wherever it stands, encoded and escaped too, and of a URL also its parts."""
    for line in {secret, *secret.splitlines()}:
        known.add(line.strip())
    _, mark, behind = secret.strip().partition("://")
    reading = choose(readings(behind)) if mark else None
    if reading is not None:
        for part in (reading.userinfo or "", *(reading.userinfo or "").split(":", 1), reading.authority, reading.rest):
            known.add(part)


def forget_secrets() -> None:
    """Know no secret any more: for tests, each of which has its own."""
    known.clear()


def scrub(text: str) -> str:
    """`text` without the secrets that are known, with user, password, query and fragment of every URL in it replaced
    by `***`, and what is named as a secret (`password=...`). Of `openai:URL#MODEL` the model stays."""
    text = known.hide(text)
    shown, done = [], 0
    mark = text.find("://")
    while mark >= 0:
        scheme = _SCHEME.search(text, max(mark - 32, done), mark)
        start = scheme.start() if scheme else mark
        # A quote stands before the whole of `openai:URL#MODEL`.
        end = _end(text, start - len(_MLLM) if text[done:start].endswith(_MLLM) else start)
        model = _model_of(text[done:start], text[start:end], text[end:])
        shown += [text[done:start], _shown(text[start:mark], text[mark + 3 : end - len(model)]), model]
        done = end
        mark = text.find("://", end)
    return _NAMED.sub(rf"\g<name>{HIDDEN}", "".join(shown) + text[done:])


def redact_url(url: str) -> str:
    """`url` to show: `rtsp://u:p@cam/1?token=x` becomes `rtsp://***@cam/1?***`, and `u:p@cam/1` `***@cam/1`.

    What a `${...}` stands for is not shown; a URL that is nothing else is shown by that name.
    """
    if REFERENCE.fullmatch(url):
        return url
    url = re.sub(r"\s", "%20", known.hide(REFERENCE.sub(HIDDEN, url)))
    if lacks_scheme(url):
        url = f"{HIDDEN}@{url.rpartition('@')[2]}"
    scheme, mark, rest = url.partition("://")
    return _NAMED.sub(rf"\g<name>{HIDDEN}", _shown(scheme, rest) if mark else url)


def redact_mllm(use: str) -> str:
    """`mllm.use` in a form that may be shown: of `openai:URL#MODEL` the URL as `redact_url` shows it, and the model."""
    url, mark, model = use.partition("#")
    if not use.startswith(_MLLM) or "@" in model:  # a # in a password has the @ of its host behind it
        return redact_url(use)
    return redact_url(url) + mark + known.hide(model)


def splits_a_password(model: str) -> bool:
    """True if what stands behind the first # of `openai:URL#MODEL` is no model: the password holds a # itself."""
    return "/" in model.rpartition("@")[2] and "@" in model


def lacks_scheme(url: str) -> bool:
    """True if it reads as a URL with credentials of which the scheme was forgotten: `u:p@cam/1`."""
    return "://" not in url and _NO_SCHEME.match(url) is not None


def plain_traceback(error: BaseException) -> str:
    """The traceback of `error` to log: without the values of variables, which may be secrets."""
    return scrub("".join(traceback.format_exception(error)))


def _forms(secret: str) -> set[str]:
    """Spellings of a secret: as it is, in a URL, and inside JSON or a Python literal."""
    return {
        *(secret, quote(secret, safe=""), quote(secret), quote_plus(secret)),
        *(json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]),
    }


def _end(text: str, start: int) -> int:
    """The end of the URL that begins at `start`: at the quote that closes it, else before the next space."""
    closing = _CLOSING.get(text[start - 1]) if start else None
    end = closing.search(text, start) if closing else None
    if end:
        return end.start()
    space = _SPACE.search(text, start)
    stop = space.start() if space else len(text)
    trailing = _TRAILING.search(text, max(stop - 4, start), stop)
    return trailing.start() if trailing else stop


def _model_of(before: str, url: str, behind: str) -> str:
    """The `#MODEL` at the end of a URL that names an MLLM; empty where it may be the rest of a password or a token, or
    where an `@` further behind may still end one."""
    first, mark, model = url.partition("#")
    if not (before.endswith(_MLLM) and _MODEL.fullmatch(model)) or "@" in behind:
        return ""
    _, _, address = first.partition("://")
    _, asks, query = address.partition("?")
    return mark + model if readings(address) and (not asks or query == HIDDEN) else ""


def _shown(scheme: str, behind: str) -> str:
    """The part of `scheme://behind` that may be shown."""
    if "@" not in behind:
        return f"{scheme}://{_without_query(behind)}"
    if len(behind) > _LONGEST:
        return f"{scheme}://{HIDDEN}"
    found = readings(behind)
    if found and all(reading.userinfo is None for reading in found):
        return f"{scheme}://{_without_query(behind)}"
    chosen = choose(found)
    if chosen and (len(found) == 1 or is_sure(chosen) or chosen.userinfo is None):
        login = "" if chosen.userinfo is None else f"{HIDDEN}@"
        return f"{scheme}://{login}{chosen.authority}{_rest_shown(chosen)}"
    return f"{scheme}://{_tail(behind, found)}"


def _rest_shown(reading: UrlReading) -> str:
    """Path and query behind a host. What stands before another @ may be the rest of a password."""
    path = _without_query(reading.rest)
    return f"/{HIDDEN}" if "@" in path else path


def _tail(behind: str, found: list[UrlReading]) -> str:
    """The part that cannot belong to a password or a query: the text behind the last @, if any."""
    first = min((len(behind) - len(one.authority) - len(one.rest) for one in found), default=0)
    head, _, tail = behind.rpartition("@")
    if not found or re.search(r"[?#]", head[first:]):
        return HIDDEN
    return f"{HIDDEN}@{_without_query(tail)}"


def _without_query(text: str) -> str:
    shown = re.split(r"[?#]", text, maxsplit=1)
    return shown[0] + (f"?{HIDDEN}" if len(shown) > 1 else "")
