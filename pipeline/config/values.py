"""Kinds of values in a site file, and its references to secrets. The only reader of the environment.

A value may refer to a secret as `${NAME}` (environment) or `${file:/path}` (first line of a file). References are kept
as written and only resolved where a connection is built, so a configuration can be stored and shown.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from pipeline.errors import ConfigError
from pipeline.redact import remember
from pipeline.urls import REFERENCE, fill

_AS_TYPED = BeforeValidator(lambda value: str(value) if type(value) is int else value)
# A number that is a name stands as it was typed: SiteLoader takes only such texts for whole numbers.

Slug = Annotated[str, _AS_TYPED, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Selector = Annotated[str, _AS_TYPED, StringConstraints(pattern=r"^(tag:)?[a-z0-9][a-z0-9_-]{0,62}$")]
"""A stream's slug, or `tag:TAG` for all streams of a tag."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
STRICT = ConfigDict(extra="forbid", strict=False)


def resolve(text: str) -> str:
    """`text` with its `${NAME}` and `${file:PATH}` references replaced; what they stand for is hidden from now on in
    every text. Raises ConfigError for one that is missing."""
    return REFERENCE.sub(lambda match: _secret(match.group(1)), text)


def resolve_url(text: str, *, whole_path: bool = False) -> str:
    """As `resolve`, for a URL: a value is percent-encoded where it stands in it, see `urls.fill`."""
    return fill(text, _secret, whole_path=whole_path)


def _secret(name: str) -> str:
    if name.startswith("file:"):
        try:
            value = Path(name[5:]).read_text(encoding="utf-8").splitlines()[0]
        except (OSError, UnicodeDecodeError, IndexError) as error:
            raise ConfigError(f"the secret file {name[5:]!r} cannot be read or is empty") from error
    elif name in os.environ:
        value = os.environ[name]
    else:
        raise ConfigError(f"the environment variable {name} is not set, but the configuration refers to it")
    remember(value)
    return value


def environment(name: str) -> str | None:
    """A variable of the environment, None where it is not set or empty."""
    return os.environ.get(name) or None
