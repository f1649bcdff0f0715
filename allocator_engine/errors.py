"""The root of the error tree, and the errors of engines. Each names who recovers, and how. Messages are for people."""


class ResadaptError(Exception):
    """Base of everything raised on purpose. Messages are for people and never hold a credential."""


class ConfigError(ResadaptError, ValueError):
    """A value given by a person is wrong. The process refuses it and says what is allowed."""


class EngineError(ResadaptError):
    """Base of everything that this package raises about an engine."""


class EngineMismatch(EngineError):
    """An engine or a checkpoint does not fit its other files, this machine or this version. The process refuses to
    start."""


class EngineMissing(EngineError, ConfigError):
    """A file or a package that was asked for is not there. The process refuses, and says what would provide it."""


class ParityError(EngineError):
    """A compiled engine answers otherwise than the network it was made from. It is not written, or refused."""


class EngineFailed(EngineError):
    """An engine could not answer, or its answer is no use: not finite, or of another shape. The caller falls back."""


def not_installed(package: str, extra: str) -> str:
    """A line about a package that cannot be imported, and the extra of this distribution that installs it."""
    return f"{package} is not installed; pip install 'resadapt-stream[{extra}]'"
