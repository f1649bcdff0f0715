"""The errors of the pipeline, in one tree with those of engines. Each names who recovers, and how."""

from allocator_engine.errors import ConfigError as ConfigError
from allocator_engine.errors import EngineError as EngineError
from allocator_engine.errors import EngineFailed as EngineFailed
from allocator_engine.errors import EngineMismatch as EngineMismatch
from allocator_engine.errors import EngineMissing as EngineMissing
from allocator_engine.errors import ParityError as ParityError
from allocator_engine.errors import ResadaptError as ResadaptError


class SourceUnavailable(ResadaptError):
    """A stream cannot be opened, or its connection broke. The service backs off with jitter and reattaches for ever."""


class SourceStalled(SourceUnavailable):
    """A stream is connected but has sent no picture for longer than its stall time. Handled as SourceUnavailable."""


class SourceRefused(SourceUnavailable):
    """A camera refuses the user name or password. It is asked again after minutes: cameras lock accounts."""


class AllocationFailed(ResadaptError):
    """An allocator could not propose. The loop falls back to one fixed scale inside the same grant, counted."""


class MLLMUnavailable(ResadaptError):
    """The multimodal LLM cannot answer now. The loop skips this hop's questions, settles what was sent, counts it.

    `sent` is False when it is certain that nothing of the context was: then its tokens are not charged.
    """

    def __init__(self, message: str, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class MLLMOverloaded(MLLMUnavailable):
    """The multimodal LLM refuses work because it has too much."""


class MLLMTimeout(MLLMUnavailable):
    """The multimodal LLM did not answer in time."""


class StoreUnavailable(ResadaptError):
    """The database cannot take a commit (full disk, lost server). The stream waits and commits it again."""


class StoreDamaged(ResadaptError):
    """The database is damaged, or its file was taken away. Nothing can be decided any more: the process ends with a
    code, so that its supervisor restarts it."""


class NotOwner(ResadaptError):
    """Another process owns the store now. What this one decided is not written; it stops without an event."""


class StreamTaken(NotOwner):
    """Another process owns these streams now (`streams`, by slug). Each stops here by name, without an event; the
    others go on."""

    def __init__(self, message: str, streams: tuple[str, ...]) -> None:
        super().__init__(message)
        self.streams = streams


class SinkUnavailable(ResadaptError):
    """A sink cannot take events now. They wait in the outbox; the relay tries again after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SinkGone(SinkUnavailable):
    """A sink will never take events again: nobody reads a pipe any more. The relay gives it up."""
