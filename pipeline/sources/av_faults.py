"""Meanings of FFmpeg's errors, in plain words."""

import errno

import av

from pipeline.redact import scrub

REFUSALS = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)
"""A camera does not take the user name or password."""

_NETWORK = {
    errno.ECONNREFUSED: "connection refused; is it on, and is the port right?",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "the network is unreachable",
    errno.EIO: "the host is unknown or the connection broke",
    errno.ECONNRESET: "the connection was reset",
    errno.ETIMEDOUT: "the host does not answer",
    errno.ENOENT: "there is no such device",
    errno.ENODEV: "there is no such device",
}


def reason_of(error: Exception, took_s: float, limit_s: float) -> str:
    """Why an opening or a read failed. The time it took says more than the type: a time-out has many."""
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return "it refuses the user name or password (401)"
    if isinstance(error, av.error.HTTPForbiddenError):
        return "it forbids this to the user (403)"
    if isinstance(error, av.error.HTTPNotFoundError):
        return "it has nothing at this path (404)"
    if took_s >= 0.9 * limit_s:
        return f"it did not answer within {limit_s:g} s"
    if isinstance(error, OSError):
        return _NETWORK.get(error.errno or 0) or words(error)
    if isinstance(error, av.error.InvalidDataError):
        return "what it sends is not video"
    return words(error)


def words(error: Exception) -> str:
    """FFmpeg's or the system's name of an error."""
    # Not str(error): FFmpeg's messages end with the URL, password and all.
    strerror = getattr(error, "strerror", None)
    return scrub(strerror if isinstance(strerror, str) else str(error))
