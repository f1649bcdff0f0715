"""Every setting of every kind of MLLM and sink: set, it arrives; where a kind ignores it, it is refused."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

import allocator_engine.fit
import pipeline
from pipeline.build import build_fit_rules, build_mllm, build_sink
from pipeline.clock import SystemClock
from pipeline.config.sinks import KafkaSecurity
from pipeline.config.site import StreamPolicy, WatchConfig, parse_site
from pipeline.errors import ConfigError
from pipeline.mllm.openai.routed import RoutedMLLM
from pipeline.sinks.kafka_address import client_options
from tests.checkpoints import tiny
from tests.mllm_server import MODEL

USES = {
    "yard": "yard",
    "transformers": "transformers:FOLDER",
    "vllm": "vllm:FOLDER",
    "openai": f"openai:http://127.0.0.1:1/v1#{MODEL}",
    "detector": "detector:FOLDER",
    "tiny": "tiny",
    "null": "null",
}
"""An MLLM of each kind."""

VALUES: dict[str, object] = {
    "frames_per_segment": 1,
    "min_tokens_per_segment": 5,
    "max_tokens_per_segment": 77,
    "timeout_s": 7.5,
    "max_queue": 3,
    "max_streams": 2,
    "max_prompt_tokens": 1000,
    "device": "cpu",
    "dtype": "float32",
    "threads": 3,
    "max_cache_tokens": 999,
    "kv_cache_gib": 0.5,
    "picture_cache_gib": 0.25,
    "gpu_memory": 0.4,
    "api_key": "a-key",
    "family": "qwen2_5_vl",
    "any_model": True,
    "samples": 4,
    "servers": ["http://127.0.0.1:2/v1"],
    "session_header": "x-session",
}
"""Another value than the default, for each setting of any kind."""

OTHER_MEANINGS = {"device", "dtype", "threads", "family", "priority", "realtime", "display_name", "paused", "streams"}
"""Names that functions use for other things than the setting."""

SEGMENTS = {"frames_per_segment", "min_tokens_per_segment", "max_tokens_per_segment"}
"""Settings that every kind has: they reach the Allocator's rules."""

ROOMS = {
    "yard": "mllm/transformers",
    "transformers": "mllm/transformers",
    "tiny": "mllm/transformers",
    "vllm": "mllm/vllm",
    "openai": "mllm/openai",
    "detector": "mllm/detector",
}
"""Where the settings of a kind are used."""


def config(kind: str, **settings: object):
    return parse_site({"mllm": {"use": USES[kind].replace("FOLDER", str(tiny())), **settings}}).mllm


def settings_of(kind: str) -> set[str]:
    return {field.name for field in fields(config(kind))} - {"use"}


OWN = [(kind, name) for kind in ROOMS for name in sorted(settings_of(kind) - SEGMENTS - {"servers"})]
FOREIGN = [(kind, name) for kind in USES for name in VALUES if name not in settings_of(kind)]


def test_every_setting_is_tried():
    assert set().union(*map(settings_of, USES)) == set(VALUES)
    assert all(VALUES[name] != getattr(config(kind), name) for kind, name in OWN)


@pytest.mark.parametrize(("kind", "name"), OWN)
def test_a_setting_of_a_backend_arrives_there_and_is_read(kind, name):
    mllm = build_mllm(config(kind, **{name: VALUES[name]}), SystemClock())
    assert getattr(mllm.settings, name) == VALUES[name]
    assert name in read_in(ROOMS[kind])


def test_further_servers_make_one_mllm_of_all_of_them():
    assert isinstance(build_mllm(config("openai", servers=VALUES["servers"]), SystemClock()), RoutedMLLM)
    with pytest.raises(ConfigError, match=r"name http://127\.0\.0\.1:1 twice"):
        build_mllm(config("openai", servers=["http://127.0.0.1:1/v1"]), SystemClock())


@pytest.mark.parametrize("kind", USES)
def test_how_frames_are_fitted_arrives_in_the_rules_of_every_kind(kind):
    settings = config(kind, **{name: VALUES[name] for name in SEGMENTS})
    rules = build_fit_rules(settings, build_mllm(settings, SystemClock()).info)
    assert {name: getattr(rules, name) for name in SEGMENTS} == {name: VALUES[name] for name in SEGMENTS}


@pytest.mark.parametrize(("kind", "name"), FOREIGN)
def test_a_setting_that_a_kind_ignores_is_refused_with_the_kind_and_its_settings(kind, name):
    with pytest.raises(ConfigError) as refusal:
        config(kind, **{name: VALUES[name]})
    assert f"mllm.{name}: unknown key of {kind}" in str(refusal.value)
    assert all(known in str(refusal.value) for known in settings_of(kind))


@pytest.mark.parametrize("sink", ["jsonl:x", "kafka://broker/t", "https://host/x"])
@pytest.mark.parametrize(("name", "value"), [("secret", "x"), ("security", {"protocol": "SSL"})])
def test_a_setting_that_a_sink_ignores_is_refused_with_its_kind(sink, name, value):
    raw = {"sinks": {"out": {"url": sink, name: value}}}
    if (sink[:5], name) in (("https", "secret"), ("kafka", "security")):
        assert getattr(parse_site(raw).sinks["out"], name) is not None
        return
    with pytest.raises(ConfigError, match=rf"sinks\.out\.{name}: unknown key of (jsonl|kafka|webhook).*known keys of"):
        parse_site(raw)


def test_every_setting_of_kafkas_security_reaches_the_client(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BROKER_PASSWORD", "s3cret")
    given = {
        "protocol": "SASL_PLAINTEXT",
        "mechanism": "SCRAM-SHA-512",
        "username": "me",
        "password": "${BROKER_PASSWORD}",
    }
    sink = parse_site({"sinks": {"k": {"url": "kafka://broker/t", "security": given}}}).sinks["k"]
    assert client_options(sink.security)["sasl_plain_password"] == "${BROKER_PASSWORD}"
    assert [value for value in client_options(sink.security).values() if value] == list(given.values())
    assert client_options(KafkaSecurity("SSL", check_hostname=False))["ssl_context"].check_hostname is False
    for name in ("ca_file", "cert_file", "key_file"):
        files = {"cert_file": "/none.pem", name: "/nowhere.pem"}
        raw = {"url": "kafka://broker/t", "security": {"protocol": "SSL", **files}}
        with pytest.raises(ConfigError, match=rf"{name} /nowhere\.pem"):
            build_sink("k", parse_site({"sinks": {"k": raw}}).sinks["k"], SystemClock())


def test_a_sink_whose_url_is_a_reference_has_the_kind_of_what_it_refers_to(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOOK", "https://host/token")
    sink = parse_site({"sinks": {"hook": {"url": "${HOOK}", "secret": "x"}}}).sinks["hook"]
    assert (sink.url, build_sink("hook", sink, SystemClock()).name) == ("${HOOK}", "hook")
    monkeypatch.delenv("HOOK")
    with pytest.raises(ConfigError, match=r"sinks\.hook\.url: the environment variable HOOK is not set"):
        parse_site({"sinks": {"hook": "${HOOK}"}})


def read_in(room: str) -> set[str]:
    """Names read as attributes of settings in the files of a room."""
    found = set()
    for file in (Path(pipeline.__path__[0]) / room).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                holder = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                found |= {node.attr} if holder in ("settings", "config") else set()
    return found


def test_a_default_has_one_home():
    """Functions take settings objects, or the value: with a default of their own they could disagree with the file."""
    known = [*map(settings_of, USES), *({one.name for one in fields(kind)} for kind in (StreamPolicy, WatchConfig))]
    knobs = set().union(*known) - OTHER_MEANINGS
    homes = [home for file in Path(pipeline.__path__[0]).rglob("*.py") for home in defaults_in(file)]
    homes += defaults_in(Path(allocator_engine.fit.__file__))
    assert {
        name: places for name in knobs if len(places := [place for known, place in homes if known == name]) > 1
    } == {}


def defaults_in(file: Path) -> list[tuple[str, str]]:
    """Arguments and fields of a file with a literal as default: name, and where it is."""
    found: list[tuple[ast.arg | ast.expr, ast.expr | None]] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.arguments):
            plain = [*node.posonlyargs, *node.args]
            found += zip(plain[len(plain) - len(node.defaults) :], node.defaults, strict=True)
            found += zip(node.kwonlyargs, node.kw_defaults, strict=True)
        elif isinstance(node, ast.AnnAssign):
            found.append((node.target, node.value))
    return [
        (place.arg if isinstance(place, ast.arg) else ast.unparse(place), f"{file.name}:{place.lineno}")
        for place, default in found
        if isinstance(default, ast.Constant) and default.value is not None
    ]
