"""What every sink does, and then what each does beyond it."""

import asyncio
import contextlib
import io
import os
import resource
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from structlog.testing import capture_logs

from pipeline.build import build_sink
from pipeline.clock import SystemClock
from pipeline.config.entries import parse_sink
from pipeline.errors import ConfigError, SinkUnavailable
from pipeline.sinks.cloudevents import BATCH_TYPE, decode, decode_batch, encode
from pipeline.sinks.jsonl import JsonlSink, TextSink
from pipeline.sinks.kafka import KafkaSink
from pipeline.sinks.webhook import SIGNATURE_HEADER, WebhookSink, sign, verify_signature
from pipeline.testing import ManualClock, MemorySink
from pipeline.types import Event
from tests.live import broker, mqtt_broker

TIME = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "whsec-hunter2"


def event(n, stream="gate", **data):
    return Event(f"{stream}-{n}", "watch.opened", stream, TIME, {"n": n, **data}, "fire")


@dataclass
class Receiver:
    """A web server that keeps what it is sent, and answers as it is told."""

    status: int = 204
    headers: dict = field(default_factory=dict)
    delay_s: float = 0.0
    requests: list = field(default_factory=list)

    @property
    def events(self):
        return [item for _, body, _ in self.requests for item in decode_batch(body)]


@pytest.fixture
def receiver():
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            time.sleep(state.delay_s)
            if 200 <= state.status < 300 and self.command == "POST":
                state.requests.append((dict(self.headers), body, self.client_address))
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_OPTIONS = answer

        def log_message(self, *arguments):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://user:{SECRET}@127.0.0.1:{server.server_port}/hooks/token-hunter2?key=hunter2"
    yield state
    server.shutdown()
    server.server_close()


@dataclass
class Case:
    sink: object
    arrived: object
    """What has arrived there so far, of at least so many events."""


@pytest.fixture
def ending():
    with contextlib.ExitStack() as stack:
        yield stack


def _mqtt(running, ending):
    subscriber = ending.enter_context(mqtt_broker.Subscriber(running, "plant", SECRET))

    def arrived(count):
        mqtt_broker.until(lambda: len(subscriber.below("plant/events/")) >= count)
        return [decode(payload) for payload in subscriber.below("plant/events/")]

    own = {"url": f"mqtt://plant:${{MQTT_PASSWORD}}@127.0.0.1:{running.port}/plant"}
    return Case(build_sink("plant", parse_sink("plant", own), SystemClock()), arrived)


@pytest.fixture(params=["memory", "jsonl", "text", "webhook", "kafka", "mqtt"])
async def case(request, tmp_path, monkeypatch, ending):
    if request.param == "memory":
        sink = MemorySink()
        made = Case(sink, lambda count: sink.events)
    elif request.param == "jsonl":
        path = tmp_path / "events.jsonl"
        made = Case(JsonlSink(path), lambda count: [decode(line) for line in path.read_bytes().splitlines()])
    elif request.param == "text":
        text = io.StringIO()
        made = Case(TextSink(text), lambda count: [decode(line) for line in text.getvalue().splitlines()])
    elif request.param == "webhook":
        receiver = request.getfixturevalue("receiver")
        made = Case(WebhookSink(receiver.url, SystemClock(), secret=SECRET), lambda count: receiver.events)
    elif request.param == "mqtt":
        monkeypatch.setenv("MQTT_PASSWORD", SECRET)
        lines = mqtt_broker.passwords(tmp_path, plant=SECRET)
        made = _mqtt(ending.enter_context(mqtt_broker.running(tmp_path, *lines)), ending)
    else:
        topic = broker.new_topic(partitions=1)
        made = Case(KafkaSink(broker.bootstrap_servers(), topic), lambda count: broker.events(topic, count))
    yield made
    await made.sink.close()


async def test_events_arrive_whole_and_in_order(case):
    batches = [[event(n, question="火?", nested=[{"x": None}]) for n in range(k, k + 3)] for k in range(0, 9, 3)]
    for batch in batches:
        await case.sink.publish(batch)
    assert await asyncio.to_thread(case.arrived, 9) == [item for batch in batches for item in batch]


async def test_an_event_published_again_arrives_again_under_the_same_id(case):
    await case.sink.publish([event(1)])
    await case.sink.publish([event(1), event(2)])
    assert [item.id for item in await asyncio.to_thread(case.arrived, 3)] == ["gate-1", "gate-1", "gate-2"]


async def test_a_large_batch_arrives_while_the_event_loop_stays_free(case):
    batch = [event(n, f"cam{n % 7}", text="x" * 500) for n in range(256)]
    publishing = asyncio.create_task(case.sink.publish(batch))
    longest = 0.0
    while not publishing.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - began)
    await publishing
    assert await asyncio.to_thread(case.arrived, 256) == batch
    assert longest < 0.5


async def test_a_check_says_where_events_go_and_publishes_nothing(case):
    assert await case.sink.check()
    await case.sink.publish([event(1)])
    assert await asyncio.to_thread(case.arrived, 1) == [event(1)]


async def test_neither_name_nor_check_holds_a_credential(case):
    assert case.sink.name
    assert "hunter2" not in case.sink.name + await case.sink.check()


# Files


async def test_an_incomplete_last_line_is_cut_off_when_a_file_is_opened(tmp_path):
    path = tmp_path / "events.jsonl"
    whole = encode(event(1)) + b"\n"
    for kept in (1, 14, 100, len(encode(event(2)))):
        path.write_bytes(whole + encode(event(2))[:kept])
        sink = JsonlSink(path)
        await sink.publish([event(3)])
        await sink.close()
        assert path.read_bytes() == whole + encode(event(3)) + b"\n"


async def test_a_file_that_ends_in_something_else_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("a line\nand a last one")
    sink = JsonlSink(path)
    with pytest.raises(ConfigError, match="last line is no event"):
        await sink.check()
    with pytest.raises(SinkUnavailable, match="last line is no event"):
        await sink.publish([event(1)])
    await sink.close()
    assert path.read_text() == "a line\nand a last one"


@contextlib.contextmanager
def files_limited_to(size):
    """Writing beyond `size` bytes fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_takes_a_batch_whole_or_not_at_all(tmp_path):
    path = tmp_path / "events.jsonl"
    sink = JsonlSink(path)
    await sink.publish([event(1)])
    before = path.read_bytes()
    with files_limited_to(len(before) * 3), pytest.raises(SinkUnavailable, match=r"events\.jsonl"):
        await sink.publish([event(n) for n in range(2, 10)])
    assert path.read_bytes() == before
    await sink.publish([event(2)])
    assert [decode(line).id for line in path.read_bytes().splitlines()] == ["gate-1", "gate-2"]
    await sink.close()


async def test_a_file_moved_away_is_begun_anew(tmp_path):
    path = tmp_path / "events.jsonl"
    sink = JsonlSink(path)
    await sink.publish([event(1)])
    path.rename(tmp_path / "events.jsonl.1")
    await sink.publish([event(2)])
    await sink.close()
    assert decode((tmp_path / "events.jsonl.1").read_bytes()).id == "gate-1"
    assert decode(path.read_bytes()).id == "gate-2"


async def test_a_file_has_one_writer(tmp_path):
    first, second = JsonlSink(tmp_path / "events.jsonl"), JsonlSink(tmp_path / "events.jsonl")
    await first.publish([event(1)])
    with pytest.raises(SinkUnavailable, match="another process"):
        await second.publish([event(2)])
    await first.close()
    await second.publish([event(2)])
    await second.close()


async def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "events.jsonl"):
        sink = JsonlSink(path)
        with pytest.raises(ConfigError, match=str(path)):
            await sink.check()
        await sink.close()
    os.mkfifo(tmp_path / "pipe")
    sink = JsonlSink(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no regular file"):
        await sink.check()
    await sink.close()


async def test_the_folder_of_a_journal_is_made(tmp_path):
    sink = JsonlSink(tmp_path / "site" / "today" / "events.jsonl")
    await sink.publish([event(1)])
    await sink.close()
    assert decode((tmp_path / "site" / "today" / "events.jsonl").read_bytes()).id == "gate-1"


async def test_a_reader_that_has_gone_is_an_unavailable_sink():
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    os.close(reading)
    sink = TextSink(stream)
    with pytest.raises(SinkUnavailable, match="nobody reads"):
        await sink.publish([event(1)])
    with contextlib.suppress(BrokenPipeError):
        stream.close()


# Webhooks


async def test_a_webhook_posts_signed_batches_of_bounded_size_on_one_connection(receiver):
    clock = ManualClock()
    sink = WebhookSink(receiver.url, clock, secret=SECRET)
    await sink.publish([event(n) for n in range(250)])
    await sink.close()
    assert [len(decode_batch(body)) for _, body, _ in receiver.requests] == [100, 100, 50]
    assert len({address for _, _, address in receiver.requests}) == 1
    for headers, body, _ in receiver.requests:
        assert headers["Content-Type"] == BATCH_TYPE
        assert verify_signature(SECRET, headers[SIGNATURE_HEADER], body, clock.now())


async def test_without_a_secret_nothing_is_signed(receiver):
    sink = WebhookSink(receiver.url, ManualClock())
    await sink.publish([event(1)])
    await sink.close()
    assert SIGNATURE_HEADER not in receiver.requests[0][0]


@pytest.mark.parametrize(
    ("status", "headers", "said", "retry_after_s"),
    [
        (429, {"Retry-After": "7"}, "cannot take events now: 429", 7.0),
        (503, {"Retry-After": format_datetime(TIME + timedelta(seconds=90), usegmt=True)}, "now: 503", 90.0),
        (503, {"Retry-After": "soon"}, "now: 503", None),
        (503, {"Retry-After": "nan"}, "now: 503", None),
        (500, {}, "now: 500", None),
        (408, {}, "now: 408", None),
        (400, {}, "refuses the events with 400", None),
        (401, {}, "refuses the events with 401", None),
        (302, {"Location": "http://elsewhere/"}, "302, a redirect", None),
    ],
)
async def test_a_reply_other_than_2xx_keeps_the_events_waiting(receiver, status, headers, said, retry_after_s):
    sink = WebhookSink(receiver.url, ManualClock())
    receiver.status, receiver.headers = status, headers
    with pytest.raises(SinkUnavailable, match=said) as caught:
        await sink.publish([event(1)])
    assert caught.value.retry_after_s == retry_after_s
    assert "hunter2" not in str(caught.value)
    receiver.status, receiver.headers = 200, {}
    await sink.publish([event(1)])
    await sink.close()
    assert receiver.events == [event(1)]


async def test_a_receiver_that_is_away_or_silent_is_unavailable_and_its_address_stays_secret(receiver):
    receiver.delay_s = 0.5
    silent = WebhookSink(receiver.url, SystemClock(), timeout_s=0.1)
    absent = WebhookSink(f"https://user:{SECRET}@127.0.0.1:1/token-hunter2", SystemClock())
    for sink in (silent, absent):
        for attempt in (sink.publish([event(1)]), sink.check()):
            with pytest.raises(SinkUnavailable, match="cannot be reached") as caught:
                await attempt
            assert "hunter2" not in str(caught.value)
        await sink.close()


@pytest.mark.parametrize("url", ["ftp://host/x", "hook", "https://", "https://host:port/", "http://[::1/"])
def test_an_address_that_is_no_webhook_is_refused(url):
    with pytest.raises(ConfigError, match="expected https://host/path"):
        WebhookSink(url, ManualClock())


def test_a_signature_holds_for_its_secret_body_and_time_only():
    body = b'[{"id": 1}]'
    header = sign(SECRET, body, TIME)
    assert verify_signature(SECRET, header, body, TIME)
    assert verify_signature(SECRET, header, body, TIME + timedelta(seconds=299))
    assert not verify_signature(SECRET, header, body, TIME + timedelta(seconds=301))
    assert not verify_signature(SECRET, header, body, TIME - timedelta(seconds=301))
    assert not verify_signature("other", header, body, TIME)
    assert not verify_signature(SECRET, header, body + b" ", TIME)
    later = sign(SECRET, body, TIME + timedelta(seconds=9)).split(",")[0]
    assert not verify_signature(SECRET, f"{later},{header.split(',')[1]}", body, TIME)


def test_a_signature_may_stand_beside_one_of_an_older_secret():
    old, new = sign("old", b"x", TIME), sign("new", b"x", TIME)
    assert verify_signature("new", f"{old},{new.split(',')[1]}", b"x", TIME)


@pytest.mark.parametrize(
    "header", ["", "t=,v1=", "v1=00", "t=1,t=1,v1=00", "t=٣,v1=00", "t=-1,v1=é", "t=1" * 50, ",,,="]
)
def test_a_malformed_signature_is_simply_wrong(header):
    assert not verify_signature(SECRET, header, b"x", TIME)


@pytest.mark.parametrize(
    "tail",
    [b"\0" * 4096, b'{"specversion":"1.0","id":"x', b'{"specversion":"1.0","i' + b"\0" * 700, b'{"spec' + b"\0" * 9],
)
async def test_a_journal_that_a_power_cut_left_torn_is_mended_and_the_log_says_where(tmp_path, tail):
    path = tmp_path / "events.jsonl"
    whole = encode(event(1)) + b"\n"
    path.write_bytes(whole + tail)
    sink = JsonlSink(path)
    with capture_logs() as logs:
        await sink.publish([event(2)])
    await sink.close()
    assert path.read_bytes() == whole + encode(event(2)) + b"\n"
    assert [(entry["path"], entry["cut_bytes"]) for entry in logs] == [(str(path), len(tail))]


async def test_a_new_journal_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        sink = JsonlSink(tmp_path / "events.jsonl")
        await sink.publish([event(1)])
        await sink.close()
    finally:
        os.umask(before)
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", ["", ".", "//events.jsonl"])
def test_a_journal_without_a_file_name_is_refused(path):
    with pytest.raises(ConfigError, match="names no file"):
        JsonlSink(path)


async def dripping(answer, pieces):
    """A web server that sends `answer` and then, byte by byte and without end, `pieces`."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            for n in range(10_000):
                writer.write(pieces[n % len(pieces)])
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_a_receiver_whose_answer_drips_is_given_up_in_all():
    async with await dripping(b"HTTP/1.1 204 No Content\r\n", [b"X: y\r\n"]) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        sink = WebhookSink(address, SystemClock(), secret=SECRET, exchange_s=0.3)
        async with asyncio.timeout(10):
            with pytest.raises(SinkUnavailable, match="no answer within"):
                await sink.publish([event(1)])
        await sink.close()


async def test_a_receiver_that_has_taken_the_events_need_not_end_its_reply(monkeypatch):
    monkeypatch.setattr("pipeline.sinks.webhook.REST_S", 0.2)
    async with await dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", [b"."]) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        sink = WebhookSink(address, SystemClock(), secret=SECRET)
        async with asyncio.timeout(10):
            await sink.publish([event(1)])
        await sink.close()


async def test_a_secret_file_is_read_again_when_the_sink_fails_whatever_its_kind(tmp_path, receiver):
    from pipeline.config.site import parse_site

    secret = tmp_path / "secret"
    secret.write_text("first\n")
    raw = {"hook": {"url": receiver.url, "secret": f"${{file:{secret}}}"}}
    sink = build_sink("hook", parse_site({"sinks": raw}).sinks["hook"], SystemClock())
    await sink.publish([event(1)])
    secret.unlink()
    receiver.status = 401
    with pytest.raises(SinkUnavailable):
        await sink.publish([event(2)])
    secret.write_text("second\n")
    with pytest.raises(SinkUnavailable):
        await sink.publish([event(2)])
    receiver.status = 204
    await sink.publish([event(2)])
    await sink.close()
    signed = [
        [
            key
            for key in ("first", "second")
            if verify_signature(key, headers[SIGNATURE_HEADER], body, datetime.now(UTC))
        ]
        for headers, body, _ in receiver.requests
    ]
    assert signed == [["first"], ["second"]]
