"""The way to a running service: its API, asked over HTTP. Problems become one line and an exit code."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from pipeline.config.values import environment
from pipeline.errors import ConfigError, ResadaptError
from pipeline.redact import redact_url

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 30.0

Url = Annotated[str | None, typer.Option("--url", help=f"The service's API; else RESADAPT_URL, else {DEFAULT_URL}.")]
ApiKey = Annotated[str | None, typer.Option("--key", help="A key; else RESADAPT_KEY. Or @FILE that holds one.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


class ServiceUnavailable(ResadaptError):
    """No service answers at the URL, or it cannot do now what was asked."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A service's API, and how its answers are shown."""

    client: httpx.Client
    as_json: bool

    def get(self, path: str, **params: object) -> Any:  # noqa: ANN401 - JSON
        """The answer to a GET."""
        return self.send("GET", path, params=params)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:  # noqa: ANN401 - JSON
        """The answer to a request, None where it has no body. Raises ConfigError for what was asked wrongly,
        ServiceUnavailable for the rest."""
        given = _given(params or {})
        with _named(str(self.client.base_url)):
            response = self.client.request(method, path, json=body, params=given, headers=headers, timeout=timeout_s)
        require_success(response)
        if not response.content:
            return None
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return response.json() if is_json else response.content

    def all(self, path: str, limit: int, **params: object) -> list[dict[str, Any]]:
        """Items of a list, page after page, at most `limit`."""
        items: list[dict[str, Any]] = []
        cursor = None
        while len(items) < limit:
            page = self.get(path, limit=min(limit - len(items), 500), cursor=cursor, **params)
            items += page["items"]
            if (cursor := page["next"]) is None:
                break
        return items

    @contextmanager
    def lines(self, path: str, params: Mapping[str, object], last_id: str | None) -> Iterator[Iterator[str]]:
        """The lines of an answer that does not end."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        opened = self.client.stream("GET", path, params=_given(params), headers=headers, timeout=60.0)
        with _named(str(self.client.base_url)), opened as response:
            if response.is_error:
                response.read()
            require_success(response)
            yield response.iter_lines()

    def show(self, found: object) -> None:
        """Print JSON."""
        print(json.dumps(found, ensure_ascii=False, default=str))  # noqa: T201 - the command's output


def remote(url: str | None, key: str | None, as_json: bool) -> Remote:
    """The service that options and environment name. Raises ConfigError for a URL or key that is none."""
    address = url or environment("RESADAPT_URL") or DEFAULT_URL
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"--url is {redact_url(address)!r}; expected http://HOST:PORT or https://...")
    secret = key or environment("RESADAPT_KEY")
    if secret and secret.startswith("@"):
        try:
            with open(secret[1:], encoding="utf-8") as file:
                secret = file.readline().strip()
        except OSError as error:
            raise ConfigError(f"--key names {secret[1:]!r}, which cannot be read: {error.strerror}") from error
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    try:
        client = httpx.Client(base_url=address, headers=headers, timeout=TIMEOUT_S)
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise ConfigError(f"--url or --key cannot be used: {error}") from error
    return Remote(client, as_json)


def require_success(response: httpx.Response) -> None:
    """Raise what a problem says: ConfigError for what was asked wrongly, else ServiceUnavailable."""
    if not response.is_error:
        return
    try:
        problem = response.json()
        detail = str(problem["detail"])
        fields = ", ".join(str(fault["field"]) for fault in problem.get("errors", []))
    except (ValueError, KeyError, TypeError):
        detail, fields = response.text[:200] or response.reason_phrase, ""
    hint = "; give one with --key or RESADAPT_KEY" if response.status_code == 401 else ""
    text = f"{fields}: {detail}{hint}" if fields and not detail.startswith(fields) else f"{detail}{hint}"
    raise (ConfigError if response.status_code < 500 else ServiceUnavailable)(text)


@contextmanager
def _named(address: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise ServiceUnavailable(
            f"no service answers at {redact_url(address)}: {why}; start one with `resadapt serve`, or name another with"
            " --url"
        ) from error


def _given(params: Mapping[str, object]) -> httpx.QueryParams:
    """The parameters that are not None; a list is given as often as it has values."""
    pairs: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in params.items():
        several = value if isinstance(value, list | tuple) else (value,)
        plain = (one if isinstance(one, bool | int | float) else str(one) for one in several if one is not None)
        pairs.extend((name, one) for one in plain)
    return httpx.QueryParams(pairs)


def path_of(section: str, slug: str, more: str = "") -> str:
    """The path of an entry."""
    return f"/v1/{section}/{quote(slug, safe='')}{more}"
