"""The errors of engines. Each names who recovers, and how. Messages are for people."""


class EngineError(Exception):
    """Base of everything that this package raises about an engine."""


class EngineMismatch(EngineError):
    """An engine's files do not fit each other, this machine or this version. The process refuses to start."""


class EngineMissing(EngineError, ValueError):
    """A file or a package that was asked for is not there. The process refuses, and says what would provide it."""


class ParityError(EngineError):
    """A compiled engine answers otherwise than the network it was made from. It is not written, or refused."""


class EngineFailed(EngineError):
    """An engine could not answer, or its answer is no use: not finite, or of another shape. The caller falls back."""


def not_installed(package: str, extra: str) -> str:
    """A line about a package that cannot be imported, and the extra of this distribution that installs it."""
    return f"{package} is not installed; pip install 'resadapt-stream[{extra}]'"
