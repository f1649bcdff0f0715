"""The end of a command: by itself, by signals, or because nobody reads its output. Never by hanging."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import NoReturn, Protocol, TypeVar

import structlog

from pipeline.clock import Clock
from pipeline.config.site import SiteConfig
from pipeline.errors import ResadaptError, SinkGone
from pipeline.waiting import first, stop

EXIT_UNREAD = 141
"""Exit code when nobody reads the output any more: that of a program which SIGPIPE ends."""
UNREAD_BY_OTHERS = 1
"""That of Typer and Rich then, which end with it for no other reason here."""
EXIT_STUCK = 4
"""Exit code when something would not end within its time. What was committed is in the store."""
REPEAT_S = 1.0
"""A signal that comes again within this time is the same wish: a wrapper passes it on, a key is pressed twice."""
START_END_S = 10.0
"""How long what has been opened may take to close when a signal ends the start."""
SPARE_S = 15.0
"""How much longer than twice `drain_s`, for hops and for events, the end may take in all."""

log = structlog.get_logger()

_T = TypeVar("_T")


class Stopped(ResadaptError):
    """A signal ended the command before it had begun its work."""

    def __init__(self, signum: signal.Signals) -> None:
        super().__init__(f"ended by {signum.name} while starting")
        self.signum = signum


class Unread(SinkGone):
    """Nobody reads the output any more. The command ends without a word."""


def unwritten(cause: BaseException | None) -> SinkGone:
    """The error that ends a command whose output failed with `cause`: silent where nobody reads the output, else with
    the reason."""
    if isinstance(cause, OSError) and not isinstance(cause, BrokenPipeError):
        return SinkGone(f"the standard output takes nothing more: {cause.strerror}")
    return Unread("nobody reads the standard output any more")


class Signals:
    """The wishes that signals bring, from now on until the process ends.

    The first SIGTERM, SIGINT or, unless `reload_on_hangup`, SIGHUP sets `stop`; another one, REPEAT_S later, `hurry`;
    after that the next ends the process as it would any other. With `reload_on_hangup` SIGHUP sets `hangup`, at any
    time. Signals that the process was started to ignore stay ignored.
    """

    def __init__(self, clock: Clock, reload_on_hangup: bool = False) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self.hangup = asyncio.Event()
        self.signum = signal.SIGTERM
        self._clock = clock
        self._asked_at_s = 0.0
        self._watchdog: threading.Timer | None = None
        self._reload_on_hangup = reload_on_hangup
        self._loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                # Not as the loop's own, which go with it: what is left of the process would die of a repeat.
                signal.signal(signum, self._heard)

    def allow(self, seconds: float) -> None:
        """End the process the hard way, unless it has ended within so many seconds from now."""
        if self._watchdog:
            self._watchdog.cancel()
        self._watchdog = threading.Timer(seconds, _end_hard, [seconds])
        self._watchdog.daemon = True
        self._watchdog.start()

    def _heard(self, number: int, _frame: object) -> None:
        signum = signal.Signals(number)
        if self._loop.is_closed():
            self._ask(signum)
        elif signum == signal.SIGHUP and self._reload_on_hangup:
            self._loop.call_soon_threadsafe(self.hangup.set)
        else:
            self._loop.call_soon_threadsafe(self._ask, signum)

    def _ask(self, signum: signal.Signals) -> None:
        now_s = self._clock.monotonic_s()
        if not self.stop.is_set():
            self.signum = signum
            self.stop.set()
        elif now_s - self._asked_at_s < REPEAT_S:
            return
        elif self.hurry.is_set():
            end_by(signum)
        else:
            log.warning("hurried", signal=signum.name)
            self.hurry.set()
        self._asked_at_s = now_s


class Startable(Protocol):
    """A service, alone or with its API, that starts on entering and drains on leaving."""

    @property
    def site(self) -> SiteConfig: ...

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def hurry(self) -> None: ...


@asynccontextmanager
async def started(service: Startable, signals: Signals) -> AsyncGenerator[None, None]:
    """A service from its start to the end of its drain, which are both bounded once a signal has come.

    Raises Stopped when a signal comes before it has started.
    """
    opening = asyncio.create_task(service.__aenter__(), name="start")
    await first(_ended(opening), signals.stop.wait())
    if not opening.done():
        signals.allow(START_END_S)
        opening.cancel()
        await _ended(opening)
    if opening.cancelled():
        raise Stopped(signals.signum)
    await opening
    hurrying = asyncio.create_task(_hurry(service, signals), name="hurry")
    try:
        yield
    finally:
        signals.allow(2 * service.site.drain_s + SPARE_S)
        try:
            await service.__aexit__(*sys.exc_info())
        finally:
            await stop([hurrying])


async def _hurry(service: Startable, signals: Signals) -> None:
    await signals.hurry.wait()
    service.hurry()


async def _ended(task: asyncio.Task[_T]) -> None:
    await asyncio.wait({task})


def run_to_end(main: Coroutine[object, object, None]) -> None:
    """Run a command's coroutine. If a signal ended its start, so it ends the process, at once: threads that load a
    model cannot be stopped, and nobody waits for them any more."""
    try:
        with asyncio.Runner() as runner:
            try:
                runner.run(main)
            except Stopped as stopped:
                end_by(stopped.signum)
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if isinstance(getattr(signal.getsignal(signum), "__self__", None), Signals):
                signal.signal(signum, signal.SIG_IGN)  # all is done, and the rest is bounded


def end_by(signum: signal.Signals) -> NoReturn:
    """End the process as the signal would have, which is what whoever sent it looks for."""
    _flush()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)


def end_unread() -> NoReturn:
    """End the process without a word, because there is nobody to read it."""
    _flush()
    sys.exit(EXIT_UNREAD)


def write_out() -> None:
    """Write out what is buffered for the standard output. Raises Unread, or SinkGone where it takes nothing."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        _flush()
        raise unwritten(error) from error


def _end_hard(seconds: float) -> None:
    names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.current_thread())
    log.error("not_ended_in_time", waited_s=seconds, threads=names[:20])
    _flush()
    os._exit(EXIT_STUCK)


def _flush() -> None:
    """Write out what is buffered; what nobody reads goes nowhere, so that Python's own last flush does not complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
