from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config.site import load_site, parse_site
from pipeline.config.values import resolve
from pipeline.core.budget import BURST_HOPS, Rate
from pipeline.errors import ConfigError
from pipeline.redact import redact_mllm, redact_url, scrub

GATE = {"streams": {"gate": {"url": "rtsp://camera/1"}}}


def refused(raw, *parts):
    with pytest.raises(ConfigError) as refusal:
        parse_site(raw)
    for part in parts:
        assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "family", "bounds"),
    [
        ({}, "qwen3_vl", (30, 15)),
        ({}, "qwen3_5", (60, 15)),
        ({"context_max_s": 20}, "qwen3_5", (20, 10)),
        ({"context_max_s": 90}, "qwen3_vl", (90, 15)),
        ({"context_keep_s": 5}, "qwen3_5", (60, 5)),
    ],
)
def test_how_long_a_context_lasts_follows_the_family_unless_it_is_said(given, family, bounds):
    rules = parse_site({"streams": {"gate": {"url": "a", **given}}}).streams["gate"].context_rules(family)
    assert (rules.max_s, rules.keep_s) == bounds


def test_streams_take_the_defaults_and_override_them_deeply():
    site = parse_site(
        {
            "defaults": {"sample_fps": 4, "budget": {"rate_tokens_per_s": 100, "burst_tokens": 700}},
            "streams": {"gate": {"url": "a"}, "dock": {"url": "b", "sample_fps": 1, "budget": {"burst_tokens": 9}}},
        }
    )
    gate, dock = site.streams["gate"], site.streams["dock"]
    assert (gate.sample_fps, gate.budget.rate_tokens_per_s, gate.budget.burst_tokens) == (4, 100, 700)
    assert (dock.sample_fps, dock.budget.rate_tokens_per_s, dock.budget.burst_tokens) == (1, 100, 9)


def test_what_may_be_saved_up_is_said_in_tokens_or_in_hops():
    said = {"tokens": {"burst_tokens": 700}, "hops": {"burst_hops": 2, "rate_tokens_per_s": 30}, "neither": {}}
    site = parse_site({"streams": {slug: {"url": "a", "budget": budget} for slug, budget in said.items()}})
    found = {slug: (one.budget.rate, one.budget.hops) for slug, one in site.streams.items()}
    assert found == {
        "tokens": (Rate(400, 700), 0),
        "hops": (Rate(30, 300), 2),
        "neither": (Rate(400, 4000), BURST_HOPS),
    }


def test_an_unknown_key_is_refused_with_the_known_ones_and_the_nearest():
    refused({"streams": {"gate": {"url": "a", "sampel_fps": 3}}}, "streams.gate.sampel_fps", "'sample_fps'", "hop_s")
    refused({"streem": {}}, "streem", "did you mean 'streams'", "watches")
    refused(
        {"sinks": {"k": {"url": "kafka://b/t", "security": {"pasword": "x"}}}}, "sinks.k.security.pasword", "'password'"
    )
    refused(GATE | {"gpu_budget": {"rate": 1}}, "gpu_budget.rate", "rate_tokens_per_s")


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ({"streams": {"Gate 1": {"url": "a"}}}, ["'Gate 1'", "slug"]),
        ({"streams": {"gate": {}}}, ["streams.gate.url", "missing"]),
        ({"defaults": {"sample_fps": -1}}, ["defaults.sample_fps is -1; expected more than 0"]),
        ({"defaults": {"sample_fps": "two"}}, ["defaults.sample_fps is 'two'; expected a number"]),
        ({"defaults": {"realtime": "perhaps"}}, ["defaults.realtime is 'perhaps'; expected true or false"]),
        ({"defaults": {"rtsp_transport": "ip"}}, ["defaults.rtsp_transport is 'ip'; expected 'tcp' or 'udp'"]),
        ({"mllm": {"use": "tiny", "max_queue": 1.5}}, ["mllm.max_queue is 1.5; expected a whole number"]),
        (GATE | {"watches": {"w": {"question": "x", "streams": "dock"}}}, ["w.streams is text; expected a list"]),
        ({"streams": {"gate": {"url": "a", "hop_s": 0.3}}}, ["streams.gate", "hop_s is 0.3", "whole number"]),
        ({"streams": {"gate": {"url": "a", "context_keep_s": 40}}}, ["streams.gate", "context_keep_s is 40", "30"]),
        (GATE | {"watches": {"w": {"question": ""}}}, ["watches.w.question", "empty"]),
        (GATE | {"watches": {"w": {"question": "x" * 10_000}}}, ["watches.w.question", "10000", "2000"]),
        (GATE | {"watches": {"w": {"question": "x", "streams": ["dock"]}}}, ["watches.w.streams", "dock", "gate"]),
        (GATE | {"watches": {"w": {"question": "x", "open_at": 0.2}}}, ["clear_at", "0.3", "open_at 0.2"]),
        (GATE | {"watches": {"w": {"question": "x", "confirm": [3, 2]}}}, ["watches.w.confirm", "(3, 2)"]),
        ({"metrics": {"port": 70000}}, ["metrics.port", "70000"]),
        ({"mllm": {"use": "tiny", "frames_per_segment": 3}}, ["mllm.frames_per_segment", "3"]),
        ({"streams": {"gate": {"url": "a", "budget": {"burst_tokens": 3}}}}, ["streams.gate.budget", "3", "least 4"]),
        ({"streams": {"gate": {"url": "a", "budget": {"burst_hops": 0.5}}}}, ["streams.gate.budget.burst_hops", "0.5"]),
        ({"gpu_budget": {"burst_hops": 2}}, ["gpu_budget.burst_hops", "burst_tokens"]),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_was_expected(raw, parts):
    refused(raw, *parts)


@pytest.mark.parametrize(
    "raw",
    [
        {"streams": {"gate": "rtsp://operator:s3cret@10.0.0.7/1"}},
        {"streams": [{"url": "rtsp://operator:s3cret@10.0.0.7/1"}]},
        {"streams": {"gate": {"url": ["rtsp://operator:s3cret@10.0.0.7/1"]}}},
        {"sinks": {"k": {"url": "kafka://broker/events", "security": [{"password": "s3cret"}]}}},
        {"sinks": {"k": {"url": "kafka://broker/events", "security": {"password": ["s3cret"]}}}},
        {"sinks": {"k": {"url": "kafka://broker/events", "security": "user:s3cret"}}},
        {"sinks": "https://hooks.example/services/s3cret"},
        {"streams": {"gate": "rtsp://operator:my s3cret@10.0.0.7/1"}},
        {"mllm": {"api_key": ["s3cret"]}},
    ],
)
def test_what_is_refused_for_its_place_shows_no_credentials(raw):
    with pytest.raises(ConfigError, match=r"expected|known keys") as refusal:
        parse_site(raw)
    assert "s3cret" not in str(refusal.value)


def test_a_question_in_any_script_is_welcome():
    site = parse_site(GATE | {"watches": {"w": {"question": "フォークリフトの近くに人がいますか？"}}})
    assert site.watches["w"].question.startswith("フォーク")


def test_a_key_written_twice_is_refused_with_its_line(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text("streams:\n  gate: {url: a}\n  dock: {url: b}\n  gate: {url: c}\n")
    with pytest.raises(ConfigError, match=r"site\.yaml: line 4: 'gate' is written twice"):
        load_site(path)


@pytest.mark.parametrize(
    "text", ["mllm: {use: tiny, api_key:s3cret}", "sinks: {k: {url: 'kafka://b/t', security: {password:s3cret}}}"]
)
def test_a_password_without_a_space_before_it_is_not_repeated(tmp_path: Path, text):
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigError, match="needs a space behind its colon: unknown key") as refusal:
        load_site(tmp_path / "site.yaml")
    assert "s3cret" not in str(refusal.value)


def test_a_number_where_a_password_belongs_is_not_repeated():
    with pytest.raises(ConfigError, match=r"mllm\.api_key is a number; expected text, in quotes$"):
        parse_site({"mllm": {"use": "openai:http://h/v1#m", "api_key": 90071992}})


@pytest.mark.parametrize(
    "value",
    [
        "@s3cret",
        "*s3cret",
        "!s3cret",
        "%s3cret",
        "a s3cret: b",
        '"s3cret"abc',
        '"s3cret\\d"',
        "!!int s3cret",
        "!s3cret!x",
    ],
)
def test_a_password_that_is_no_yaml_is_not_repeated(tmp_path: Path, value):
    path = tmp_path / "site.yaml"
    path.write_text(f"mllm:\n  api_key: {value}\n")
    with pytest.raises(ConfigError, match=r"site\.yaml is not YAML.*in quotes") as refusal:
        load_site(path)
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(("text", "said"), [("- a\n- b\n", "list"), ("streams: [", "not YAML"), ("\xff", None)])
def test_a_file_that_is_no_site_is_refused_by_its_name(tmp_path: Path, text, said):
    path = tmp_path / "site.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as refusal:
        load_site(path)
    assert "site.yaml" in str(refusal.value)
    assert said is None or said in str(refusal.value)


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read the site file .*nowhere\.yaml"):
        load_site(tmp_path / "nowhere.yaml")


def test_references_are_resolved_from_the_environment_and_files(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("CAM_PASSWORD", "s3cret")
    (tmp_path / "user").write_text("operator\nsecond line\n")
    assert resolve(f"rtsp://${{file:{tmp_path}/user}}:${{CAM_PASSWORD}}@cam/1") == "rtsp://operator:s3cret@cam/1"


def test_a_missing_reference_is_refused_by_its_name(monkeypatch):
    monkeypatch.delenv("CAM_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="CAM_PASSWORD is not set"):
        resolve("rtsp://u:${CAM_PASSWORD}@cam/1")
    with pytest.raises(ConfigError, match="secret file '/nowhere'"):
        resolve("${file:/nowhere}")


def test_a_configuration_keeps_the_reference_and_not_the_secret(monkeypatch):
    monkeypatch.setenv("CAM_PASSWORD", "s3cret")
    assert "s3cret" not in repr(parse_site({"streams": {"gate": {"url": "rtsp://u:${CAM_PASSWORD}@cam/1"}}}))


SECRETS = st.text(st.characters(codec="ascii", exclude_characters="/", min_codepoint=33), min_size=6)


@given(SECRETS, SECRETS)
@example("000000", "000}${")  # its end and what follows the host look like a reference
def test_no_credential_of_a_url_survives_redaction(user, password):
    url = f"rtsp://{user}:{password}@cam.example:554/stream?token={password}"
    assert redact_url(url) == "rtsp://***@cam.example:554/stream?***"
    assert scrub(f"cannot open {url}: 401").startswith("cannot open rtsp://***@cam.example:554/stream?***")


@pytest.mark.parametrize("password", ["p@ss", "p/ss", "p#ss", "p?ss", "p:ss", "[p]"])
def test_a_password_that_makes_no_legal_url_is_redacted_all_the_same(password):
    assert redact_url(f"rtsp://u:{password}@cam/1") == "rtsp://***@cam/1"
    assert scrub(f"x rtsp://u:{password}@cam/1 y") == "x rtsp://***@cam/1 y"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://u:p@ss/s3cret@cam/1", "rtsp://***@cam/1"),
        ("rtsp://u:12345/s3cret@cam/1", "rtsp://***@cam/1"),
        ("rtsp://u:my s3cret@cam/1", "rtsp://***@cam/1"),
        ("rtsp ://u:s3cret@cam/1", "rtsp%20://***@cam/1"),
        ("rtsp_tcp://u:s3cret@cam/1", "rtsp_tcp://***@cam/1"),
        ("u:s3cret@cam/1", "***@cam/1"),
        ("//u:s3cret@cam/1", "***@cam/1"),
        ("http://cam/1?pwd=it's-s3cret", "http://cam/1?***"),
        ("srt://cam:9?passphrase=my s3cret", "srt://cam:9?***"),
        ("rtsp://cam/user=u&password=s3cret&stream=0.sdp", "rtsp://cam/user=u&password=***&stream=0.sdp"),
        ("rtsp://cam/user=u_password=s3cret_stream=0.sdp", "rtsp://cam/user=u_password=***"),
        ("rtsp://cam/user=u&password=my/s3cret&stream=0.sdp", "rtsp://cam/user=u&password=***&stream=0.sdp"),
    ],
)
def test_a_url_as_people_type_it_shows_no_credentials(url, shown):
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("use", "shown"),
    [
        ("openai:http://u:s3cret@h:8000/v1#org/Model-2B", "openai:http://***@h:8000/v1#org/Model-2B"),
        ("openai:http://h/v1?key=s3cret#Model#lora", "openai:http://h/v1?***#Model#lora"),
        ("openai:http://u:a#s3cret@h/v1#Model", "openai:http://***@h/v1?***"),
        ("transformers:/models/qwen3-vl-2b", "transformers:/models/qwen3-vl-2b"),
    ],
)
def test_an_mllm_is_shown_by_its_model_and_without_credentials(use, shown):
    assert redact_mllm(use) == shown
    assert scrub(redact_mllm(use)) == shown
    assert scrub(f"loading {shown}, which takes a while") == f"loading {shown}, which takes a while"


@pytest.mark.parametrize(
    "use",
    [
        "openai:http://u:a#s3cret@h",
        "openai:http://u:a@s3cret#b@h/v1#Model",
        "openai:http://u:a#s3cret@h/v1",
        "openai:http://u:s3cret@h/v1?key=a#s3cret",
        "openai:http://u:a#s3cret more@h/v1#Model",
        "other:http://h/v1#s3cret",
        'openai:http://h/v1#Model","key":"s3cret"',
    ],
)
def test_what_may_be_a_part_of_a_password_is_no_model(use):
    assert "s3cret" not in scrub(use)
    if "key" not in use and "other" not in use:
        assert "s3cret" not in redact_mllm(use)


@pytest.mark.parametrize("part", ["://", "://a:", "http://", "://a?", "token=", "a@", ":"])
def test_no_text_is_too_long_to_be_looked_through(part):
    assert scrub(part * 30_000 + " end").endswith(" end")
    assert redact_url(part * 30_000)


def test_what_is_said_behind_a_url_is_kept():
    assert scrub('{"at":"http://h/x?k=1","reason":"disk full"}') == '{"at":"http://h/x?***","reason":"disk full"}'
    assert scrub("cannot open 'http://h/x?k=1': 401") == "cannot open 'http://h/x?***': 401"


@pytest.mark.parametrize("url", ["rtsp://cam:8554/yard", "http://cam:80/a@2x.m3u8", "/clips/a@b.mp4", "synthetic:"])
def test_a_url_without_a_secret_is_left_alone(url):
    assert redact_url(url) == url


BASE, WHOLE = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        ({}, {}, None),
        ({"endpoint": "http://c:4318"}, {}, "http://c:4318/v1/traces"),
        ({"endpoint": "http://c:4318/"}, {}, "http://c:4318/v1/traces"),
        ({"endpoint": "https://c/otlp/v1/traces"}, {}, "https://c/otlp/v1/traces"),
        ({}, {BASE: "http://c:4318"}, "http://c:4318/v1/traces"),
        ({}, {WHOLE: "http://c:4318/spans"}, "http://c:4318/spans"),
        ({}, {BASE: "http://c:4318", WHOLE: "http://d:4318/spans"}, "http://d:4318/spans"),
        ({"endpoint": "http://site:4318"}, {BASE: "http://c:4318"}, "http://site:4318/v1/traces"),
        ({"endpoint": "${COLLECTOR}"}, {"COLLECTOR": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"endpoint": "http://c:4318", "sample": 0}, {}, None),
        ({"endpoint": "http://c:4318"}, {"OTEL_SDK_DISABLED": "TRUE"}, None),
        ({"endpoint": "http://c:4318"}, {"OTEL_TRACES_EXPORTER": "none"}, None),
        ({}, {BASE: ""}, None),
    ],
)
def test_traces_go_where_the_site_says_or_else_the_environment(monkeypatch, given, environment, address):
    for name in (BASE, WHOLE, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert parse_site({"tracing": given}).tracing.address() == address


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"endpoint": "collector:4318"}, "http://HOST:4318"),
        ({"endpoint": "grpc://c:4317"}, "http://HOST:4318"),
        ({"endpoint": "http://"}, "http://HOST:4318"),
        ({"endpoint": "http://c:4318/?token=hush"}, "http://HOST:4318"),
        ({"sample": 1.5}, "sample"),
        ({"sample": "often"}, "sample"),
        ({"headers": {"a b": "x"}}, "headers"),
        ({"every": 3}, "every"),
    ],
)
def test_traces_to_nowhere_are_refused_by_name(given, part):
    with pytest.raises(ConfigError, match="tracing") as refusal:
        parse_site({"tracing": given})
    assert part in str(refusal.value)
    assert "hush" not in str(refusal.value)


def test_a_header_of_traces_that_cannot_be_one_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv("TOKEN", "hu\nsh")
    with pytest.raises(ConfigError, match=r"tracing\.headers\.authorization") as refusal:
        parse_site({"tracing": {"headers": {"authorization": "${TOKEN}"}}}).tracing.resolved_headers()
    assert "hu" not in str(refusal.value).replace("authorization", "")
