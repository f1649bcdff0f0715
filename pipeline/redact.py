"""Credentials out of text. Everything that shows a URL to a person or a log goes through here.

Rather too much than too little: what a person typed may not be a legal URL, and its password must not be shown all the
same. A slash in a password is recognised by the user name and colon before it, where on the web no port can be.
"""

import re
import traceback

# What is looked for ahead has an end, so that no text takes longer than in proportion to its length.
_SCHEME = r"(?P<scheme>(?P<web>https?)://|(?<!http)(?<!https)://)"
_NO_PORT = r"(?(web)(?!\d{1,9}(?:[/?#]|\s|$)))"
_USERINFO = re.compile(
    rf"{_SCHEME}(?:[^\s/]{{0,2048}}@|[^\s/:@]{{0,512}}:{_NO_PORT}[^\s@]{{0,2048}}@)(?:[^\s@?#]{{0,2048}}@)*",
    re.IGNORECASE,
)
_QUERY = re.compile(r"(?P<url>://[^\s?#]{0,2048})[?#]\S+?(?=['\"<>)\]},;.:]{0,4}(?:\s|$)|\"[,}\]])")
_NAMED = re.compile(r"(?P<name>(?:pass(?:word|wd|phrase)?|pwd|token|secret|api_?key)=)[^\s&?#]+", re.IGNORECASE)
_NO_SCHEME = re.compile(r"^(?://)?[^/\s:]*:[^/]*@")


def scrub(text: str) -> str:
    """`text` with the user, password, query and fragment of every URL in it replaced by `***`, and what is named as a
    secret (`password=...`)."""
    return _NAMED.sub(r"\g<name>***", _QUERY.sub(r"\g<url>?***", _USERINFO.sub(r"\g<scheme>***@", text)))


def redact_url(url: str) -> str:
    """`url` to show: `rtsp://u:p@cam/1?token=x` becomes `rtsp://***@cam/1?***`, and `u:p@cam/1` `***@cam/1`."""
    shown = scrub(re.sub(r"\s", "%20", url))
    if lacks_scheme(shown):
        shown = _NO_SCHEME.sub("***@", shown)
    scheme, mark, rest = shown.partition("://")
    address, *behind = re.split(r"[?#]", rest, maxsplit=1)
    return scheme + mark + address + ("?***" if behind else "")


def redact_mllm(use: str) -> str:
    """What `mllm.use` says, to show: of `openai:URL#MODEL` the URL as `redact_url` shows it, and the model."""
    url, mark, model = use.partition("#")
    if not use.startswith("openai:") or splits_a_password(model):
        return redact_url(use)
    return redact_url(url) + mark + model


def splits_a_password(model: str) -> bool:
    """True if what stands behind the first # of `openai:URL#MODEL` is no model: the password holds a # itself."""
    return "/" in model.rpartition("@")[2] and "@" in model


def lacks_scheme(url: str) -> bool:
    """True if it reads as a URL with credentials of which the scheme was forgotten: `u:p@cam/1`."""
    return "://" not in url and _NO_SCHEME.match(url) is not None


def plain_traceback(error: BaseException) -> str:
    """The traceback of `error` to log: without the values of variables, which may be secrets."""
    return scrub("".join(traceback.format_exception(error)))
