"""Admission of entries that arrive by the API: specs that can be read, secrets only by reference, addresses within the
policy."""

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.api.auth import Caller
from pipeline.api.problems import Problem
from pipeline.build import build_source
from pipeline.clock import Clock
from pipeline.config.api import ApiConfig
from pipeline.config.entries import api_policy, named_streams, parse_sink, parse_untrusted, parse_watch, require_slug
from pipeline.config.site import WatchConfig, parse_site
from pipeline.core.selectors import TAG, selects
from pipeline.errors import ConfigError
from pipeline.registry.entry import Kind, RegistryEntry, Spec
from pipeline.registry.registry import Snapshot
from pipeline.service.unnamed import require_mllm_or_yard
from pipeline.types import Json
from pipeline.urls import parse_url, split_port

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_SECRET_FIELDS = frozenset({"secret", "password", "username", "api_key", "token"})
_SECRET_PARAMETER = re.compile(r"(?:pass(?:word|wd|phrase)?|pwd|token|secret|api_?key|auth)=([^&#]*)", re.IGNORECASE)
_LOOKUP_SCHEMES = frozenset({"synthetic"})


class Admission:
    """Judges what an ApiConfig lets in. `site` is what the process was started with, as plain mappings."""

    def __init__(self, config: ApiConfig, site: Mapping[str, object], clock: Clock) -> None:
        self._config = config
        self._site = site
        self._clock = clock
        self.policy = api_policy(config.allow_addresses, config.deny_addresses)

    def admit(self, kind: Kind, slug: str, spec: Spec, snapshot: Snapshot) -> None:
        """Raise Problem or ConfigError, naming the field, for a spec that may not come in."""
        require_slug(slug)
        self._secrets(spec)
        if kind == "stream":
            self.admit_stream(slug, spec)
        elif kind == "watch":
            known, watch = set(snapshot.of("stream")), parse_watch(slug, spec)
            if strangers := named_streams(watch) - known:
                raise Problem(
                    422,
                    "not accepted",
                    f"streams names {', '.join(sorted(strangers))}, not attached; expected slugs of attached streams or"
                    f" tag:TAG; attached: {', '.join(sorted(known)[:20]) or 'none'}",
                    "streams",
                )
            if watch.zone is not None:
                require_zone(watch, watch.zone, snapshot)
        else:
            wanted = parse_sink(slug, spec).filter
            streams = {name for name in wanted.streams if not name.startswith(TAG)}
            _require_known("stream", "filter.streams", streams, snapshot)
            _require_known("watch", "filter.watches", set(wanted.watches), snapshot)
            url = str(spec["url"])
            if not url.startswith("notify:"):  # a reference to a URL of the operator's
                self._address(url.removeprefix("webhook:"))

    def admit_stream(self, slug: str, spec: Spec) -> None:
        """The same for a stream, which is not opened."""
        for name in ("allow_addresses", "deny_addresses"):
            if name in spec:
                raise Problem(
                    422, "not accepted", f"{name}: only the site file says so, under `api`; leave it out", name
                )
        stream = parse_untrusted(slug, spec, self._site)
        self._address(stream.url)
        require_mllm_or_yard(self._site, replace(parse_site({}), streams={slug: stream}))
        try:
            build_source(slug, stream, self._clock, 0.0)
        except ConfigError as error:
            raise Problem(422, "not accepted", str(error), "url") from error

    def admit_search(self, hosts: Sequence[str], password: str | None) -> None:
        """The same for hosts that are to be asked whether they are cameras. Blocks while it looks them up."""
        self._secrets({"password": password})
        for place, host in enumerate(hosts):
            try:
                found = parse_url(host).host if "://" in host else split_port(host)[0] if host.count(":") < 2 else host
                self._host(found.strip("[]"))
            except (Problem, ConfigError) as error:
                raise Problem(422, "not accepted", str(error), f"hosts.{place}") from None

    def _secrets(self, spec: Mapping[str, Json], path: str = "") -> None:
        for key, value in spec.items():
            where = f"{path}{key}"
            if isinstance(value, Mapping):
                self._secrets(value, f"{where}.")
            if not isinstance(value, str):
                continue
            for name in _REFERENCE.findall(value):
                if not any(fnmatchcase(name, pattern) for pattern in self._config.allow_secrets) or ".." in name:
                    allowed = ", ".join(self._config.allow_secrets) or "none"
                    raise Problem(
                        422,
                        "not accepted",
                        f"${{{name}}} may not be referred to by the API; expected one of {allowed} (api.allow_secrets)",
                        where,
                    )
            if key in _SECRET_FIELDS and value and _REFERENCE.sub("", value):
                raise _inline(where)
            if key == "url" and _has_inline_secret(value):
                raise _inline(where)

    def _address(self, url: str) -> None:
        plain = _REFERENCE.sub("secret", url)
        scheme, mark, _ = plain.partition(":")
        if not mark or "/" in scheme or scheme in ("file", "jsonl", "v4l2"):
            self._file(plain.partition(":")[2] if mark and "/" not in scheme else plain)
        elif scheme.lower() not in _LOOKUP_SCHEMES:
            for host in _hosts(plain):
                self._host(host)

    def _file(self, name: str) -> None:
        path = Path(unquote(name.removeprefix("//")))
        if not path.is_absolute() or not self.policy.permits_file(path, None):
            raise Problem(
                422,
                "not accepted",
                "local files and devices may not be named by the API, but those of a file:/FOLDER in"
                " api.allow_addresses",
                "url",
            )

    def _host(self, host: str) -> None:
        try:
            found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
        except (OSError, UnicodeError) as error:
            raise Problem(422, "not accepted", f"the host {host[:80]!r} cannot be found: {error}", "url") from error
        addresses = [ip_address(str(text).partition("%")[0]) for text in found]
        if len(self.policy.permitted(addresses, None)) < len(addresses):
            raise Problem(
                422,
                "not accepted",
                f"the host {host[:80]!r} leads to an address of this machine, of its link or of its cloud; expected a"
                " public or private one, or one that api.allow_addresses names",
                "url",
            )


def require_zone(watch: WatchConfig, zone: str, snapshot: Snapshot) -> None:
    """Raise Problem where a stream that a watch names lacks its zone, or none of its streams has it."""
    selectors, named = frozenset(watch.streams), named_streams(watch)
    streams = [one for one in snapshot.of("stream").values() if selects(selectors, one.slug, one.tags)]
    lacking = [one for one in streams if zone not in zones_of(one)]
    if len(lacking) < len(streams):
        lacking = [one for one in lacking if one.slug in named]
    if lacking or not streams:
        known = sorted({name for one in lacking for name in zones_of(one)})
        where = ", ".join(one.slug for one in lacking[:10]) or "any stream that it stands on"
        detail = (
            f"zone: {zone!r} is no zone of {where}; expected"
            f" {', '.join(known) or 'one that is drawn under `zones` of the stream'}"
        )
        raise Problem(422, "not accepted", detail, "zone")


def zones_of(stream: RegistryEntry) -> frozenset[str]:
    """The names of a stream's zones."""
    zones = stream.spec.get("zones")
    return frozenset(zones) if isinstance(zones, Mapping) else frozenset()


def _require_known(kind: Kind, where: str, named: set[str], snapshot: Snapshot) -> None:
    known = set(snapshot.of(kind))
    if strangers := named - known:
        raise Problem(
            422,
            "not accepted",
            f"{where} names {', '.join(sorted(strangers))}, which is not there; expected some of"
            f" {', '.join(sorted(known)[:20]) or 'none'}",
            where,
        )


def allow_entry(caller: Caller, entry: RegistryEntry | None, kind: Kind, spec: Spec | None, snapshot: Snapshot) -> None:
    """Raise Problem 403 where a caller's tags do not reach: a stream of other tags, a watch on streams of others, a
    sink."""
    if not caller.tags:
        return
    for said in (None if entry is None else entry.spec, spec):
        if said is not None and not _reaches(caller, kind, said, snapshot):
            tags = ", ".join(sorted(caller.tags))
            raise Problem(403, "not allowed", f"the key is for streams of the tags {tags} only", _scoped_field(kind))


def sees(caller: Caller, entry: RegistryEntry, snapshot: Snapshot) -> bool:
    """True if a caller may see an entry. A watch is visible to whoever may see one of its streams."""
    if not caller.tags:
        return True
    if entry.kind == "stream":
        return caller.sees(entry.tags)
    if entry.kind == "watch":
        selectors = _selectors(entry.spec)
        streams = snapshot.of("stream").values()
        return any(selects(selectors, one.slug, one.tags) for one in streams if caller.sees(one.tags)) or any(
            f"{TAG}{tag}" in selectors for tag in caller.tags
        )
    return False


def _reaches(caller: Caller, kind: Kind, spec: Spec, snapshot: Snapshot) -> bool:
    if kind == "stream":
        tags = spec.get("tags", ())
        return isinstance(tags, list | tuple) and caller.sees([str(tag) for tag in tags])
    if kind == "watch":
        selectors, streams = _selectors(spec), snapshot.of("stream")
        return bool(selectors) and all(
            name.removeprefix(TAG) in caller.tags
            if name.startswith(TAG)
            else name in streams and caller.sees(streams[name].tags)
            for name in selectors
        )
    return False


def _selectors(spec: Spec) -> frozenset[str]:
    streams = spec.get("streams", ())
    return frozenset(map(str, streams)) if isinstance(streams, list | tuple) else frozenset()


def _scoped_field(kind: Kind) -> str:
    return {"stream": "tags", "watch": "streams", "sink": "url"}[kind]


def _inline(where: str) -> Problem:
    return Problem(
        422, "not accepted", f"{where} holds a secret; expected a reference such as ${{CAMERA_PASSWORD}}", where
    )


def _has_inline_secret(url: str) -> bool:
    bare = _REFERENCE.sub("", url)
    userinfo, mark, _ = bare.partition("://")[2].partition("/")[0].rpartition("@")
    if mark and userinfo.partition(":")[2]:
        return True
    if "://" not in bare and re.match(r"[^/\s:]+:[^/@]+@", bare):
        return True
    return any(_SECRET_PARAMETER.findall(bare))


def _hosts(url: str) -> list[str]:
    try:
        netloc = urlsplit(url).netloc
    except ValueError:
        raise Problem(422, "not accepted", "it is not a URL; expected scheme://host/path", "url") from None
    address = netloc.rpartition("@")[2]
    hosts = [urlsplit(f"//{part}").hostname or "" for part in address.split(",")]
    if not all(hosts):
        raise Problem(422, "not accepted", "it has no host; expected scheme://host/path", "url")
    return hosts
