"""Logs hold no credentials, wherever in an entry they are."""

import io
import json
import logging
import sys

import pytest
import structlog

from pipeline.errors import ConfigError
from pipeline.logs import set_up_logs


@pytest.fixture(autouse=True)
def as_before():
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.configure(**configured)
    logging.captureWarnings(False)


def test_no_credential_is_logged_however_deep_it_lies(capsys):
    set_up_logs("info")
    url = "rtsp://u:s3cret@cam/1"
    log = structlog.get_logger()
    log.error("lost", reason=f"cannot open {url}", urls=[url], by={"gate": (url,)}, error=OSError(url), count=3)
    logging.getLogger("other").error("cannot open %s", url)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert "s3cret" not in str(lines)
    shown = "rtsp://***@cam/1"
    assert lines[0] | {"timestamp": ""} == {
        "event": "lost",
        "level": "error",
        "timestamp": "",
        "reason": f"cannot open {shown}",
        "urls": [shown],
        "by": {"gate": [shown]},
        "error": shown,
        "count": 3,
    }
    assert lines[1]["event"] == f"cannot open {shown}"


def test_an_unknown_level_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'loud'; expected one of debug, info, warning, error"):
        set_up_logs("loud")


def test_people_get_lines_without_json_colours_or_control_characters(capsys):
    set_up_logs("info", people=True, colours=False)
    structlog.get_logger().info("watch.opened", stream="gate", score=0.93, question="is\x1b[2J it?")
    logging.getLogger("other").warning("slow \x1b]0;x\x07")
    first, second = capsys.readouterr().err.splitlines()
    assert first.split(maxsplit=1)[1].startswith("[info] watch.opened")
    assert "stream=gate score=0.93" in first
    assert "\x1b" not in first + second
    assert "{" not in first + second


def test_what_stands_in_for_stderr_gets_the_lines(capsys, monkeypatch):
    set_up_logs("info", people=True, colours=False)
    instead = io.StringIO()
    monkeypatch.setattr(sys, "stderr", instead)
    structlog.get_logger().info("serving")
    assert "serving" in instead.getvalue()
