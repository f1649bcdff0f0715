"""Events as messages to people, by any service that apprise knows: Slack, Teams, Telegram, ntfy, e-mail and others.

apprise blocks, so it has a thread of its own. Its URLs are secrets, of which every part may be one: what it says of a
message is shown without any part of the URL.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import apprise
import structlog

from pipeline.config.messages import NotifyConfig
from pipeline.core.wording import EventTemplate, values_of
from pipeline.errors import ConfigError, SinkUnavailable
from pipeline.redact import HIDDEN, remember, scrub
from pipeline.sinks.base import PictureOf
from pipeline.types import Event

log = structlog.get_logger()

MESSAGE_S = 20.0
"""How long one message may take, whatever its service does meanwhile."""
MAX_TITLE, MAX_BODY = 250, 4000
"""Characters; the rest is cut off. Services have bounds of their own beyond that."""
MAX_PICTURE_BYTES = 8 * 2**20
"""A larger picture is not attached."""
MAX_REASON = 300
"""Characters of what a service says when it refuses."""

_SHORTEST_PART = 4
_PARTS = re.compile(r"[^/:@?&=#,;\s]+")
_KINDS = {
    "watch.opened": apprise.NotifyType.WARNING,
    "watch.cleared": apprise.NotifyType.SUCCESS,
    "stream.lost": apprise.NotifyType.FAILURE,
    "stream.recovered": apprise.NotifyType.SUCCESS,
}

# Both log URLs; what a service says of a message comes with the message's result.
logging.getLogger("apprise").propagate = False
for chatty in ("apprise", "urllib3"):
    logging.getLogger(chatty).setLevel(logging.WARNING)


def no_picture(event: Event) -> Path | None:
    """The picture of an event where none are kept."""
    return None


class NotifySink:
    """Sends one message for each event. A message that its service does not take is SinkUnavailable.

    After such a failure the batch comes again, and what was sent of it is not sent twice.
    """

    def __init__(self, config: NotifyConfig, *, name: str, picture_of: PictureOf = no_picture) -> None:
        url = config.url.removeprefix("notify:").strip()
        self.name = name
        self._parts = _secret_parts(url)
        self._service, self._service_name = _service_of(url)
        if len(url) >= _SHORTEST_PART:
            remember(url)
        self._title, self._body = EventTemplate(config.title), EventTemplate(config.body)
        self._picture_of = picture_of if config.picture else no_picture
        self._thread = ThreadPoolExecutor(1, f"notify {name}")
        self._under_way: asyncio.Future[str] | None = None
        self._sent: set[str] = set()

    async def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.id not in self._sent:
                await self._notify(event)
                self._sent.add(event.id)
        self._sent.clear()

    async def check(self) -> str:
        """The service; nothing is sent, for that somebody would read."""
        return f"events go to {self._service_name} as messages; no message was sent to try it"

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _notify(self, event: Event) -> None:
        if self._under_way and not self._under_way.done():
            raise SinkUnavailable(f"{self._service_name} is still busy with an earlier message")
        values = values_of(event)
        title, body = self._title.fill(values)[:MAX_TITLE], self._body.fill(values)[:MAX_BODY]
        kind = _KINDS.get(event.type, apprise.NotifyType.INFO)
        picture = await asyncio.to_thread(self._picture, event)
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._send, title, body, kind, picture)
        self._under_way = running
        done, _ = await asyncio.wait({running}, timeout=MESSAGE_S)
        if not done:
            raise SinkUnavailable(f"{self._service_name} did not take a message within {MESSAGE_S:g} s")
        if refusal := running.result():
            raise SinkUnavailable(f"{self._service_name} did not take a message: {refusal}")

    def _send(self, title: str, body: str, kind: apprise.NotifyType, picture: Path | None) -> str:
        """Why the service did not take it; empty if it did. In the sink's thread."""
        attached = None if picture is None else str(picture)
        result = self._service.notify(
            body=body,
            title=title,
            notify_type=kind,
            body_format=apprise.NotifyFormat.TEXT,
            attach=attached,
            timeout=MESSAGE_S,
        )
        if result:
            return ""
        said = [entry.message for entry in result.logs() if entry.level in ("WARNING", "ERROR", "CRITICAL")]
        return self._shown(" ".join(said)) or f"{result.status.name.lower()}, without a reason"

    def _picture(self, event: Event) -> Path | None:
        picture = self._picture_of(event)
        try:
            fits = picture is not None and 0 < picture.stat().st_size <= MAX_PICTURE_BYTES
        except OSError as error:
            log.warning("picture_not_attached", sink=self.name, event_id=event.id, reason=error.strerror)
            return None
        return picture if fits else None

    def _shown(self, text: str) -> str:
        """The text of a service's reply, without any part of its URL."""
        plain = " ".join(text.split())
        for part in self._parts:
            plain = re.sub(re.escape(part), HIDDEN, plain, flags=re.IGNORECASE)
        return scrub(plain)[:MAX_REASON]


def _service_of(url: str) -> tuple[apprise.Apprise, str]:
    """The service of a URL and what it is called. Raises ConfigError, which shows nothing of the URL but its scheme."""
    asset = apprise.AppriseAsset(async_mode=False, app_id="resadapt-stream", app_desc="resadapt-stream", app_url="")
    service = apprise.Apprise(asset=asset)
    scheme = re.match(r"([a-z][a-z0-9+.-]{0,19})://", url, re.IGNORECASE)
    named = f"its scheme is {scheme[1]!r}" if scheme else "it has no scheme"
    if not scheme or not service.add(url):
        raise ConfigError(
            f"the URL behind notify: is of no service that apprise knows, or lacks a part ({named}); expected one as in"
            " https://appriseit.com/services, such as slack://..., mailtos://... or ntfy://..."
        )
    if len(service) != 1:
        service.clear()
        raise ConfigError("the URL behind notify: names several services; give each a sink of its own")
    (plugin,) = service
    return service, str(plugin.service_name)


def _secret_parts(url: str) -> list[str]:
    """All parts of a URL that may be secrets, the longest first, in every form in which they are written."""
    behind = url.partition("://")[2]
    parts = {form for part in _PARTS.findall(behind) for form in (part, unquote(part))}
    return sorted((part for part in parts if len(part) >= _SHORTEST_PART), key=len, reverse=True)
