"""Tables for people: whole columns on a narrow terminal, whole lines in a pipe, and no text that steers a terminal."""

import io
import re

import pytest

from pipeline.cli import event, key, label, search, sink, stream, watch
from pipeline.cli.output import table

SPEC = {
    "url": "rtsp://***@camera.example/a/long/path/1",
    "tags": ["dock", "night"],
    "question": "is a " * 20,
}
STATUS = {
    "since": "2026-11-29T23:26:00Z", "lag_s": 0.25, "spent": 1234, "granted": 9876, "step_name": "native", "alarms": [],
    "node": "", "state": "connecting", "reason": "the camera refused the password; it is asked again in 120 s",
}  # fmt: skip
STREAM = {"slug": "a-camera-with-a-long-name-at-the-north-gate", "spec": SPEC, "status": STATUS}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(monkeypatch, columns, rows, width: int | None) -> list[str]:
    return shown(monkeypatch, lambda: table(columns, rows), width)


def shown(monkeypatch, show, width: int | None) -> list[str]:
    out = Terminal() if width else io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("NO_COLOR", "1")
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
    else:
        monkeypatch.delenv("COLUMNS", raising=False)
    show()
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("room", [event, key, label, search, sink, stream, watch])
@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_headers_are_whole_and_lines_fit(monkeypatch, room, width):
    headers = [column.header for column in room.COLUMNS]
    cells = ["several words, as they come " if column.text else 1234 for column in room.COLUMNS]
    lines = printed(monkeypatch, room.COLUMNS, [cells], width)
    shown = lines[0].split("  ")
    assert {one.strip() for one in shown if one} <= set(headers)
    assert shown[0] == headers[0]
    assert max(map(len, lines)) <= width
    assert width < 160 or room in (label, stream) or len([one for one in shown if one]) == len(headers)


def test_state_and_reason_are_what_a_narrow_terminal_keeps_of_a_stream(monkeypatch):
    lines = printed(monkeypatch, stream.COLUMNS, [stream.row(STREAM)], 60)
    assert lines[0].split() == ["stream", "state", "reason"]
    text = " ".join(" ".join(lines[1:]).split())
    assert "connecting" in text
    assert "password" in text


def test_nothing_is_folded_or_left_out_in_a_pipe(monkeypatch):
    lines = printed(monkeypatch, stream.COLUMNS, [stream.row(STREAM)], None)
    assert len(lines) == 2
    assert STREAM["slug"] in lines[1]
    assert lines[1].endswith(STATUS["reason"])
    assert "12 %" in lines[1]


def test_the_nodes_of_streams_are_shown_in_a_fleet_only(monkeypatch):
    for items, there in (([STREAM], False), ([STREAM, {**STREAM, "status": {**STATUS, "node": "edge-3"}}], True)):
        lines = shown(monkeypatch, lambda items=items: stream.show_streams(items), None)
        assert ("node" in lines[0].split(), "edge-3" in lines[-1].split()) == (there, there)
        assert len(lines) == 1 + len(items)


def test_texts_of_others_are_shown_as_text(monkeypatch):
    lines = printed(monkeypatch, ("setting", "value"), [("name", "[red]x[/]\x1b[2J"), ("none", None)], 60)
    assert lines[1].split() == ["name", "[red]x[/]\\x1b[2J"]
    assert lines[2].split() == ["none", "-"]
