"""Turns the options of a command for one stream into the mappings of a site file."""

from pipeline.config.site import overlay
from pipeline.config.slugs import stream_slug, unique_slug
from pipeline.errors import ConfigError
from pipeline.urls import REFERENCE


def site_of_one(
    raw: dict[str, object],
    source: str,
    name: str | None,
    watches: list[str],
    realtime: bool,
    own: dict[str, object],
    rules: dict[str, object],
) -> dict[str, object]:
    """The site file's mappings with one stream instead of its own, and the watches of the command line if any. `own` is
    laid over the defaults, `rules` over every watch.

    Raises ConfigError if nothing is watched for.
    """
    slug = name or stream_slug(source)
    defaults = raw.get("defaults", {})
    site = raw | {"streams": {slug: {"url": source, "realtime": realtime}}}
    site["defaults"] = overlay(defaults, own) if isinstance(defaults, dict) else defaults
    if watches:
        site["watches"] = _named_watches(watches)
    elif isinstance(known := raw.get("watches"), dict):
        # The watches of the file, whichever of its streams they stand on.
        site["watches"] = {slug: _without(watch, "streams") for slug, watch in known.items()}
    if isinstance(watched := site.get("watches"), dict):
        site["watches"] = {slug: one | rules if isinstance(one, dict) else one for slug, one in watched.items()}
    if not site.get("watches"):
        raise ConfigError("nothing to watch for; give at least one --watch 'is there a car in view?'")
    return site


def named_sinks(urls: list[str], secret: str | None = None) -> dict[str, object]:
    """Sinks by slugs, each made from its scheme. What goes to webhooks is signed with `secret`, if there is one."""
    if secret and not REFERENCE.fullmatch(secret):
        raise ConfigError("--sink-secret is written out; expected a reference such as ${HOOK_SECRET}, in single quotes")
    named: dict[str, object] = {}
    for url in urls:
        slug = unique_slug(url.partition(":")[0] if ":" in url else "sink", "sink", named)
        signing: dict[str, object] = {"secret": secret} if secret else {"signed": False}
        named[slug] = {"url": url, **signing} if url.lower().startswith(_WEBHOOK) else url
    if secret and not any(isinstance(one, dict) for one in named.values()):
        raise ConfigError(
            "--sink-secret signs what goes to webhooks, and no --sink is one; expected --sink https://..."
        )
    return named


_WEBHOOK = ("http:", "https:", "webhook:")


def given(**values: object) -> dict[str, object]:
    """The options that were given."""
    return {key: value for key, value in values.items() if value not in (None, {})}


def _named_watches(questions: list[str]) -> dict[str, object]:
    named: dict[str, object] = {}
    for number, question in enumerate(questions, 1):
        named[unique_slug(question, f"watch-{number}", named)] = {"question": question}
    return named


def _without(mapping: object, key: str) -> object:
    return {k: v for k, v in mapping.items() if k != key} if isinstance(mapping, dict) else mapping
