"""Lost RTP packets, which FFmpeg tells of nowhere but in its log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import av.logging

_LOST = "RTP: missed"
"""How such a line begins. If its words change, a loss shows only where the decoder sees it; a live test notices."""


@contextmanager
def losses_heard(wanted: bool) -> Iterator[Callable[[], bool]]:
    """Gives a function: whether packets were lost in what this thread has read since its last call.

    What FFmpeg logs is kept for that, and goes nowhere else: it may name an address with its password.
    """
    if not wanted:
        yield lambda: False
        return
    swallow = logging.getLogger("libav")
    swallow.propagate = False
    if not swallow.handlers:
        swallow.addHandler(logging.NullHandler())
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.WARNING)
    with av.logging.Capture() as lines:

        def lost() -> bool:
            heard = any(message.startswith(_LOST) for _, _, message in lines)
            lines.clear()
            return heard

        yield lost
