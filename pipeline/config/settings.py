"""Settings on a command line: NAME=VALUE, in the words of a site file."""

from collections.abc import Mapping, Sequence

import yaml

from pipeline.config.site import overlay
from pipeline.errors import ConfigError


def settings(texts: Sequence[str] | None) -> dict[str, object]:
    """Mappings of `budget.rate_tokens_per_s=200` and the like; an empty value is None. Raises ConfigError."""
    found: dict[str, object] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set {name!r} has no value; expected NAME=VALUE, such as sample_fps=4")
        try:
            inner: object = yaml.safe_load(value) if value else None
        except yaml.YAMLError:
            inner = value
        for key in reversed(name.split(".")[1:]):
            inner = {key: inner}
        found = overlay(found, {name.split(".")[0]: inner})
    return found


def dump_yaml(raw: Mapping[str, object]) -> str:
    """Mappings as the text of a site file."""
    return yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True)
