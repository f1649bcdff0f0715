"""Kinds of values in a site file, and its references to secrets. The only reader of the environment.

A value may refer to a secret as `${NAME}` (environment) or `${file:/path}` (first line of a file). References are kept
as written and only resolved where a connection is built, so a configuration can be stored and shown.
"""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from pipeline.errors import ConfigError

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
STRICT = ConfigDict(extra="forbid", strict=False)


def resolve(text: str) -> str:
    """`text` with its `${NAME}` and `${file:PATH}` references replaced. Raises ConfigError for one that is missing."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name.startswith("file:"):
            try:
                return Path(name[5:]).read_text(encoding="utf-8").splitlines()[0]
            except (OSError, IndexError) as error:
                raise ConfigError(f"the secret file {name[5:]!r} cannot be read or is empty") from error
        if name not in os.environ:
            raise ConfigError(f"the environment variable {name} is not set, but the configuration refers to it")
        return os.environ[name]

    return re.sub(r"\$\{([^}]+)\}", value, text)


def environment(name: str) -> str | None:
    """A variable of the environment, None where it is not set or empty."""
    return os.environ.get(name) or None
