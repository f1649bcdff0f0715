"""Credentials out of text. Everything that shows a URL to a person or a log goes through here.

Rather too much than too little: what a person typed may not be a legal URL, and its password must not be shown all the
same. A slash in a password is recognised by the user name and colon before it, where no port can be.
"""

import re
import traceback

_SCHEME = r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)"
_USERINFO = re.compile(rf"{_SCHEME}(?:[^\s/]*@|[^\s/:@]*:(?!\d+(?:[/?#]|\s|$))[^\s@]*@)", re.IGNORECASE)
_QUERY = re.compile(rf"(?P<url>{_SCHEME}[^\s?#'\"<>]*)[?#][^\s'\"<>]+", re.IGNORECASE)


def scrub(text: str) -> str:
    """`text` with the user, password, query and fragment of every URL in it replaced by `***`."""
    return _QUERY.sub(r"\g<url>?***", _USERINFO.sub(r"\g<scheme>***@", text))


def redact_url(url: str) -> str:
    """`url` to show: `rtsp://u:p@cam/1?token=x` becomes `rtsp://***@cam/1?***`."""
    return scrub(url.replace(" ", "%20"))


def plain_traceback(error: BaseException) -> str:
    """The traceback of `error` to log: without the values of variables, which may be secrets."""
    return scrub("".join(traceback.format_exception(error)))
