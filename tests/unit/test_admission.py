"""What may come by the API: 60 and more hostile addresses are refused, and secrets that are written out."""

import json
import socket

import pytest

from pipeline.api.admission import Admission
from pipeline.api.problems import Problem
from pipeline.clock import SystemClock
from pipeline.config.api import ApiConfig
from pipeline.errors import ConfigError
from pipeline.registry.registry import Snapshot

HOSTILE_HOSTS = [
    *("127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "0", "0.0.0.0", "0x7f000001", "0x7f.1", "2130706433"),
    *("017700000001", "0177.0.0.1", "localhost", "LOCALHOST", "localhost.", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254"),
    *("169.254.0.1", "[fe80::1]", "0xa9fea9fe", "2852039166", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"),
    *("100.100.100.200", "168.63.129.16", "[fd00:ec2::254]", "192.0.0.192", "169.254.170.2"),
]
HOSTILE_URLS = [
    *(f"http://{host}/video.mp4" for host in HOSTILE_HOSTS),
    *("rtsp://127.0.0.1/1", "rtsps://localhost:8554/1", "rtmp://127.0.0.1/live/x", "srt://127.0.0.1:9000"),
    *("tcp://127.0.0.1:22", "udp://127.0.0.1:53", "rtp://127.0.0.1:5004", "https://127.0.0.1:8080/v1/keys"),
    *("http://user@127.0.0.1/", "http://8.8.8.8@127.0.0.1/", "http://127.0.0.1:80#@8.8.8.8/"),
    *("/etc/passwd", "file:///etc/passwd", "file:/etc/passwd", "file://localhost/etc/passwd", "../secret.mp4"),
    *("recording.mp4", "v4l2:/dev/video0", "FILE:///etc/passwd", "concat:/etc/passwd|/etc/shadow", "subfile:,,x"),
    *("pipe:0", "data:video/mp4;base64,AAAA", "crypto:/etc/passwd", "gopher://8.8.8.8/", "ftp://8.8.8.8/x.mp4"),
    *("smb://8.8.8.8/x", "ffrtmphttp://8.8.8.8/", "", " ", "http://", "rtsp:///path", "http:///x", "http://[::1"),
    *("rtsp:127.0.0.1/1", "http://exa mple/", "http://no-such-host.invalid/x"),
]


def admission(**config):
    return Admission(ApiConfig(**config), {"mllm": "null"}, SystemClock())


def refused(admission, kind, spec):
    with pytest.raises((Problem, ConfigError)) as caught:
        admission.admit(kind, "x", spec, Snapshot())
    return caught.value


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_hostile_streams_are_refused(url):
    error = refused(admission(), "stream", {"url": url})
    assert isinstance(error, ConfigError) or error.body.errors[0].field == "url"


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_hostile_sinks_are_refused(host, monkeypatch):
    monkeypatch.setenv("SINK_SECRET", "x")
    for spec in (
        {"url": f"https://{host}/hook", "secret": "${SINK_SECRET}"},
        {"url": f"kafka://10.0.0.1:9092,{host}:9092/topic"},
    ):
        refused(admission(), "sink", spec)


def test_files_are_not_written_by_the_api():
    for url in ("jsonl:/etc/cron.d/x", "jsonl:events.jsonl", "jsonl:../x", "jsonl:/var/out/../../etc/x"):
        refused(admission(allow_addresses=["file:/var/out"]), "sink", {"url": url})
    admission(allow_addresses=["file:/var/out"]).admit("sink", "x", {"url": "jsonl:/var/out/e.jsonl"}, Snapshot())


def test_cameras_of_private_and_public_networks_are_let_in():
    for url in (
        "rtsp://10.1.2.3/1",
        "rtsp://192.168.0.9:554/main",
        "http://8.8.8.8/cam.m3u8",
        "synthetic:",
        "rtsp://[fd12::7]/1",
    ):
        admission().admit("stream", "x", {"url": url}, Snapshot())


def test_a_site_allows_more(tmp_path):
    allowed = admission(allow_addresses=["127.0.0.1", f"file:{tmp_path}"])
    allowed.admit("stream", "x", {"url": "rtsp://127.0.0.1/1"}, Snapshot())
    allowed.admit("stream", "x", {"url": f"{tmp_path}/a.mp4"}, Snapshot())
    refused(allowed, "stream", {"url": "rtsp://127.0.0.2/1"})
    refused(allowed, "stream", {"url": f"{tmp_path}/../a.mp4"})
    (tmp_path / "link").symlink_to("/etc")
    refused(allowed, "stream", {"url": f"{tmp_path}/link/passwd"})
    refused(admission(deny_addresses=["10.0.0.0/8"]), "stream", {"url": "rtsp://10.1.2.3/1"})


def test_a_name_that_leads_to_several_addresses_is_judged_by_the_worst(monkeypatch):
    found = [(0, 0, 0, "", (address, 0)) for address in ("8.8.8.8", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    refused(admission(), "stream", {"url": "rtsp://mixed.example/1"})


INLINE = [
    ("stream", {"url": "rtsp://me:s3cret@10.0.0.1/1"}),
    ("stream", {"url": "rtsp://${CAMERA_USER}:s3cret@10.0.0.1/1"}),
    ("stream", {"url": "rtsp://me:p@ss/s3cret@10.0.0.1/1"}),
    ("stream", {"url": "me:s3cret@10.0.0.1/1"}),
    ("stream", {"url": "rtsp://10.0.0.1/user=me&password=s3cret&stream=0"}),
    ("stream", {"url": "srt://10.0.0.1:9000?passphrase=s3cret"}),
    ("stream", {"url": "http://10.0.0.1/cam?token=s3cret&x=1"}),
    ("sink", {"url": "https://10.0.0.1/hook", "secret": "s3cret"}),
    ("sink", {"url": "kafka://10.0.0.1:9092/t", "security": {"username": "me", "password": "s3cret"}}),
]


@pytest.mark.parametrize(("kind", "spec"), INLINE)
def test_a_secret_that_is_written_out_is_refused_and_not_repeated(kind, spec):
    error = refused(admission(), kind, spec)
    assert isinstance(error, Problem)
    assert "reference" in str(error)
    assert "s3cret" not in error.body.model_dump_json()
    assert error.body.errors[0].field.split(".")[-1] in ("url", "secret", "username", "password")


@pytest.mark.parametrize(
    "reference", ["HOME", "AWS_SECRET_ACCESS_KEY", "file:/etc/shadow", "file:/run/secrets/../../etc/shadow", "camera_x"]
)
def test_what_the_site_does_not_offer_cannot_be_sent_to_a_strangers_camera(reference, monkeypatch):
    monkeypatch.setenv("HOME", "s3cret")
    error = refused(admission(), "stream", {"url": f"rtsp://me:${{{reference}}}@8.8.8.8/1"})
    assert "allow_secrets" in str(error)


def test_references_that_the_site_offers_are_let_in_and_kept_as_they_are(monkeypatch):
    monkeypatch.setenv("CAMERA_PASSWORD", "s3cret")
    spec = {"url": "rtsp://me:${CAMERA_PASSWORD}@10.0.0.1/1"}
    admission().admit("stream", "x", spec, Snapshot())
    assert "s3cret" not in json.dumps(spec)
    monkeypatch.delenv("CAMERA_PASSWORD")
    assert "CAMERA_PASSWORD is not set" in str(refused(admission(), "stream", spec))


def test_no_camera_is_attached_where_only_the_yards_mllm_would_answer():
    bare = Admission(ApiConfig(), {}, SystemClock())
    assert "no MLLM is named" in str(refused(bare, "stream", {"url": "rtsp://10.0.0.1/1"}))
