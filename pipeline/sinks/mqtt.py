"""Events to an MQTT 5 broker, each acknowledged (QoS 1), over one connection that is kept and made again.

While connected the broker holds `online` under BASE/status, and `offline` once the connection is lost: the last will.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import aiomqtt
import structlog

from pipeline.clock import Clock
from pipeline.config.messages import MqttConfig, mqtt_address
from pipeline.errors import ConfigError, SinkUnavailable
from pipeline.redact import remember, scrub
from pipeline.sinks.base import AnnouncedWatch
from pipeline.sinks.mqtt_messages import OFFLINE, ONLINE, STATES, MqttMessage, MqttWording
from pipeline.types import Event
from pipeline.waiting import back_off_s, first, stop, supervise

log = structlog.get_logger()

EXCHANGE_S = 10.0
"""How long connecting, and the acknowledgement of one message, may take."""
KEEPALIVE_S = 30
"""How often an idle connection is tried; a broker sends the last will after one and a half of it."""
RETRY_S = (0.5, 30.0)
"""First and longest pause between two tries to connect; an event that is to go out cuts it short."""
REFUSED_S = 300.0
"""Pause after a refused user name or password: brokers lock accounts that try again and again."""

_WRONG_LOGIN = (134, 135, 138, 140)
"""Reason codes of MQTT 5: bad user name or password, not authorized, banned, bad authentication method."""


class _Client(aiomqtt.Client):
    """A client that keeps why the broker refused a message: an acknowledgement may be a refusal."""

    refusal: str | None = None

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:  # noqa: ANN401
        if reason_code.is_failure:
            self.refusal = str(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)


class MqttSink:
    """Publishes each event to a topic, and keeps a retained state for each watch.

    Nothing connects before `connect`, `publish` or `check`. A refused login is SinkUnavailable with minutes to wait.
    """

    def __init__(self, config: MqttConfig, clock: Clock, *, name: str) -> None:
        address = mqtt_address(config.url)
        self.name = name
        self._address = address
        self._user = config.username or address.user
        self._password = config.password or address.password
        if self._password:
            remember(self._password)
        self._where = f"mqtt{'s' if address.tls else ''}://{address.host}:{address.port}"
        self._tls = _tls(config) if address.tls else None
        self._wording = MqttWording(config, address.base)
        self._clock = clock
        self._wanted: dict[tuple[str, str], AnnouncedWatch] = {}
        self._standing: dict[tuple[str, str], AnnouncedWatch] = {}
        self._open: dict[tuple[str, str], bool] = {}
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()
        self._client: _Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._hurried = asyncio.Event()
        self._tried = asyncio.Event()
        self._lost = asyncio.Event()
        self._why = f"{self._where} is not connected yet"
        self._not_before_s: float | None = None

    def connect(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(supervise(f"sink {self.name}", self._keep, self._clock), name="mqtt")

    def announce(self, watches: Sequence[AnnouncedWatch]) -> None:
        self._wanted = {(watch.stream, watch.watch): watch for watch in watches}
        self._changed.set()

    async def publish(self, events: Sequence[Event]) -> None:
        client = await self._connected()
        try:
            for event in events:
                async with self._sending:
                    await self._send(client, self._wording.of_event(event))
                    self._note(event)
        except aiomqtt.MqttError as error:
            self._lost.set()
            raise SinkUnavailable(f"{self._where} did not take an event: {scrub(str(error))}") from error

    async def check(self) -> str:
        """Connect, by a connection of its own where none is kept: one that comes and goes is nobody's presence."""
        if self._keeper is None:
            try:
                async with self._opened(will=False):
                    pass
            except aiomqtt.MqttError as error:
                raise self._unavailable(error) from error
        else:
            await self._connected()
        return f"events go to {self._where}, topics below {self._address.base}"

    async def close(self) -> None:
        if self._keeper is None:
            return
        self._closing.set()
        await first(_ended(self._keeper), self._clock.sleep(EXCHANGE_S))
        await stop([self._keeper])

    async def _connected(self) -> _Client:
        """The connection, if it is there or can be had now. Raises SinkUnavailable."""
        self.connect()
        if self._client is None:
            if (wait_s := self._refused_for_s()) > 0:
                raise SinkUnavailable(self._why, wait_s)
            self._tried.clear()
            self._hurried.set()
            await first(self._tried.wait(), self._clock.sleep(EXCHANGE_S))
        if self._client is None:
            raise SinkUnavailable(self._why, self._refused_for_s() or None)
        return self._client

    def _refused_for_s(self) -> float:
        return 0.0 if self._not_before_s is None else max(self._not_before_s - self._clock.monotonic_s(), 0.0)

    async def _keep(self) -> None:
        """Stay connected until the sink closes."""
        failures = 0
        while not self._closing.is_set():
            try:
                async with self._opened(will=True) as client:
                    failures = 0
                    await self._serve(client)
            except aiomqtt.MqttError as error:
                self._why = str(self._unavailable(error))
            except SinkUnavailable as error:
                self._why = str(error)
            failures += 1
            self._tried.set()
            if self._closing.is_set():
                return
            log.info("mqtt_not_connected", sink=self.name, reason=self._why)
            self._hurried.clear()
            wait_s = self._refused_for_s()
            hurried = self._closing.wait() if wait_s else self._hurried.wait()
            await first(hurried, self._closing.wait(), self._clock.sleep(wait_s or back_off_s(failures, *RETRY_S)))

    async def _serve(self, client: _Client) -> None:
        """Use a connection until it is lost or the sink closes. Raises MqttError, why it was lost."""
        self._lost.clear()
        self._standing.clear()
        self._changed.set()
        async with self._sending:
            await self._send(client, [self._wording.status(ONLINE)])
        self._client = client
        self._tried.set()
        self._why = f"{self._where} closed the connection"
        uses = [asyncio.create_task(use) for use in (_listen(client), self._announce(client), self._lost.wait())]
        closing = asyncio.create_task(self._closing.wait())
        try:
            done, _ = await asyncio.wait({*uses, closing}, return_when=asyncio.FIRST_COMPLETED)
            for use in done:
                await use
        finally:
            self._client = None
            await stop([*uses, closing])
        if self._closing.is_set():
            async with self._sending:
                await self._send(client, [self._wording.status(OFFLINE)])

    async def _announce(self, client: _Client) -> None:
        """Keep what the broker holds of watches as it is wanted."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            gone = [key for key in self._standing if key not in self._wanted]
            new = [key for key, watch in self._wanted.items() if _named(self._standing.get(key)) != _named(watch)]
            for key in gone:
                async with self._sending:
                    await self._send(client, self._wording.retraction(self._standing.pop(key)))
                    self._open.pop(key, None)
            for key in new:
                async with self._sending:
                    if watch := self._wanted.get(key):
                        is_open = self._open.get(key, watch.is_open)
                        await self._send(client, self._wording.announcement(replace(watch, is_open=is_open)))
                        self._standing[key] = watch

    async def _send(self, client: _Client, messages: Iterable[MqttMessage]) -> None:
        """Send one message after the other, under the lock of those who send. Raises MqttError, SinkUnavailable."""
        for message in messages:
            client.refusal = None
            await client.publish(message.topic, message.payload, qos=1, retain=message.retain, timeout=EXCHANGE_S)
            if client.refusal:
                raise SinkUnavailable(f"{self._where} refuses to take {message.topic!r}: {client.refusal}")

    def _note(self, event: Event) -> None:
        """Record the state of a watch from an event, which is newer than the announced state."""
        if event.watch_id is not None and event.type in STATES:
            self._open[event.stream_id, event.watch_id] = event.type == "watch.opened"

    @asynccontextmanager
    async def _opened(self, will: bool) -> AsyncIterator[_Client]:
        """A connection. Raises MqttError."""
        last = self._wording.status(OFFLINE)
        client = _Client(
            self._address.host,
            self._address.port,
            username=self._user,
            password=self._password,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=aiomqtt.Will(last.topic, last.payload, qos=1, retain=True) if will else None,
            tls_context=self._tls,
            keepalive=KEEPALIVE_S,
            timeout=EXCHANGE_S,
        )
        try:
            await client.__aenter__()
        except ValueError as error:  # a host that is none
            raise aiomqtt.MqttError(str(error)) from None
        try:
            self._not_before_s = None
            yield client
        finally:
            with suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)

    def _unavailable(self, error: aiomqtt.MqttError) -> SinkUnavailable:
        reason = scrub(str(error))
        code = error.rc if isinstance(error, aiomqtt.MqttCodeError) else None
        if getattr(code, "value", code) in _WRONG_LOGIN:
            self._not_before_s = self._clock.monotonic_s() + REFUSED_S
            as_whom = "the user name or password" if self._user else "to let anybody in without a user name"
            return SinkUnavailable(f"{self._where} refuses {as_whom}: {reason}", REFUSED_S)
        return SinkUnavailable(f"{self._where} cannot be reached: {reason}")


async def _listen(client: _Client) -> None:
    """Raise MqttError when the connection is lost: nothing is subscribed to, so that nothing arrives."""
    try:
        async for _ in client.messages:
            pass
    except aiomqtt.MqttError as error:
        raise aiomqtt.MqttError("the connection was lost") from error


def _named(watch: AnnouncedWatch | None) -> AnnouncedWatch | None:
    """A watch without its state."""
    return watch and replace(watch, is_open=False)


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})


def _tls(config: MqttConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file)
    except OSError as error:
        named = [path for path in (config.ca_file, config.cert_file, config.key_file) if path and "-----" not in path]
        why = error.strerror or type(error).__name__
        raise ConfigError(f"the certificate files ({', '.join(named)}) cannot be used: {why}") from None
    context.check_hostname = config.check_hostname
    return context
