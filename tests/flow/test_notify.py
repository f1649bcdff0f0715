"""Messages to people: by a web service, and by e-mail to a real SMTP server of the test's own."""

import asyncio
import base64
import json
import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from structlog.testing import capture_logs

from pipeline.build import build_sink
from pipeline.clock import SystemClock
from pipeline.config.entries import parse_sink
from pipeline.errors import ConfigError, SinkUnavailable
from pipeline.types import Event

pytest.importorskip("apprise")
controller = pytest.importorskip("aiosmtpd.controller")

TIME = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "T0KEN-hunter2"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def event(n, kind="watch.opened", **data):
    return Event(f"gate-{n}", kind, "gate", TIME, {"n": n, "question": "is there a fire?", **data}, "fire")


@dataclass
class WebService:
    """A service that takes messages as JSON, and answers as it is told."""

    status: int = 200
    delay_s: float = 0.0
    messages: list = field(default_factory=list)
    refuse_from: int | None = None


@pytest.fixture
def service(monkeypatch):
    state = WebService()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            time.sleep(state.delay_s)
            refused = state.refuse_from is not None and len(state.messages) >= state.refuse_from
            status = 503 if refused else state.status
            if status == 200:
                state.messages.append(json.loads(body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TEAM_URL", f"json://caller:{TOKEN}@127.0.0.1:{server.server_port}/hooks/{TOKEN}")
    yield state
    server.shutdown()
    server.server_close()


def sink_of(reference="${TEAM_URL}", picture_of=lambda event: None, **settings):
    own = {"url": f"notify:{reference}", **settings}
    return build_sink("team", parse_sink("team", own), SystemClock(), picture_of)


async def test_an_event_is_a_message_in_the_words_of_its_templates(service):
    sink = sink_of(title="{watch}@{stream} {severity}", body="{question} {{x}} {score} {reason}")
    await sink.publish([event(1, score=0.93, severity="high"), event(2, question="a\x1b[31mb\nc")])
    await sink.close()
    first, second = service.messages
    assert (first["title"], first["message"]) == ("fire@gate high", "is there a fire? {x} 0.93 -")
    assert first["type"] == "warning"
    assert "a[31mb" in second["message"]
    assert "\x1b" not in second["message"]


async def test_the_words_without_templates(service):
    sink = sink_of()
    await sink.publish([event(1, score=0.9), event(2, "stream.lost", reason="no packets")])
    await sink.close()
    assert [one["title"] for one in service.messages] == [
        "OPEN on gate: is there a fire?",
        "stream.lost on gate: no packets",
    ]
    assert "2026-01-01T00:00:00+00:00" in service.messages[0]["message"]


async def test_after_a_failure_no_message_is_sent_twice_and_order_is_kept(service):
    sink = sink_of(title="{id}")
    service.refuse_from = 2
    batch = [event(n) for n in range(5)]
    with pytest.raises(SinkUnavailable, match="JSON did not take a message"):
        await sink.publish(batch)
    service.refuse_from = None
    await sink.publish(batch)
    assert [one["title"] for one in service.messages] == [f"gate-{n}" for n in range(5)]
    await sink.publish(batch[:1])  # published again, it arrives again
    assert service.messages[-1]["title"] == "gate-0"
    await sink.close()


async def test_no_part_of_the_url_is_in_an_error_a_log_a_name_or_a_check(service, caplog):
    service.status = 403
    sink = sink_of()
    with capture_logs() as logs, caplog.at_level(logging.DEBUG):
        with pytest.raises(SinkUnavailable, match="did not take a message") as caught:
            await sink.publish([event(1)])
        said = await sink.check() + sink.name + str(caught.value) + json.dumps(logs, default=str) + caplog.text
    assert "403" in str(caught.value)
    for secret in ("hunter2", "T0KEN", "caller", "hooks"):
        assert secret not in said
    await sink.close()


async def test_a_service_that_hangs_is_given_up_while_the_loop_stays_free(service, monkeypatch):
    monkeypatch.setattr("pipeline.sinks.notify.MESSAGE_S", 0.3)
    service.delay_s = 3.0
    sink = sink_of()
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(SinkUnavailable):
        await sink.publish([event(1)])
    with pytest.raises(SinkUnavailable):
        await sink.publish([event(1)])
    ticking.cancel()
    assert ticks > 5
    await sink.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"pigeon://{TOKEN}", "no service that apprise knows.*'pigeon'"),
        (TOKEN, "no scheme"),
        ("", "no scheme"),
        ("slack://", "lacks a part"),
        (f"json://h/{TOKEN} json://h2/{TOKEN}", "several services"),
    ],
)
def test_a_url_that_is_of_no_service_is_refused_without_being_shown(monkeypatch, url, said):
    monkeypatch.setenv("TEAM_URL", url)
    with pytest.raises(ConfigError, match=said) as caught:
        sink_of()
    assert TOKEN not in str(caught.value)


class Mailbox:
    def __init__(self):
        self.mails, self.refuse = [], False

    async def handle_DATA(self, server, session, envelope):
        if self.refuse:
            return "451 try again later"
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"


@pytest.fixture
def mailbox(monkeypatch, unused_tcp_port):
    box = Mailbox()
    server = controller.Controller(box, hostname="127.0.0.1", port=unused_tcp_port)
    server.start()
    monkeypatch.setenv(
        "MAIL_URL",
        f"mailto://127.0.0.1:{unused_tcp_port}?smtp=127.0.0.1&from=cam@example.org&to=ops@example.org&mode=insecure",
    )
    yield box
    server.stop()


async def test_an_e_mail_with_the_picture_of_the_event(mailbox, tmp_path):
    picture = tmp_path / "event.png"
    picture.write_bytes(PIXEL)
    sink = sink_of("${MAIL_URL}", picture_of=lambda one: picture if one.data["n"] == 1 else None)
    assert "no message was sent" in await sink.check()
    await sink.publish([event(1), event(2)])
    await sink.close()
    with_picture, without = mailbox.mails
    assert str(with_picture["Subject"]) == "OPEN on gate: is there a fire?"
    assert "ops@example.org" in with_picture["To"]
    pictures = [part for part in with_picture.walk() if part.get_content_type() == "image/png"]
    assert [part.get_payload(decode=True) for part in pictures] == [PIXEL]
    assert not [part for part in without.walk() if part.get_content_maintype() == "image"]


async def test_a_picture_that_is_gone_or_not_wanted_holds_up_no_message(mailbox, tmp_path):
    picture = tmp_path / "event.png"
    gone = sink_of("${MAIL_URL}", picture_of=lambda one: picture)
    await gone.publish([event(1)])
    picture.write_bytes(PIXEL)
    unwanted = sink_of("${MAIL_URL}", picture_of=lambda one: picture, picture=False)
    await unwanted.publish([event(2)])
    assert len(mailbox.mails) == 2
    assert not [part for mail in mailbox.mails for part in mail.walk() if part.get_content_maintype() == "image"]
    await gone.close()
    await unwanted.close()


async def test_a_mail_server_that_refuses_is_named_with_its_reason(mailbox):
    mailbox.refuse = True
    sink = sink_of("${MAIL_URL}")
    with pytest.raises(SinkUnavailable, match=r"E-Mail did not take a message"):
        await sink.publish([event(1)])
    mailbox.refuse = False
    await sink.publish([event(1)])
    assert len(mailbox.mails) == 1
    await sink.close()
