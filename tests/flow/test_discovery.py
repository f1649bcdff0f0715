"""Cameras found on the network: a device of our own on loopback, by UDP and HTTP; and hostile ones."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clock import SystemClock
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.service.cameras import Search, find_cameras, stream_address, stream_named
from pipeline.sources.discovery import discover, match_of
from pipeline.sources.onvif import own_service, stream_url
from pipeline.sources.onvif_xml import MAX_BYTES, parse_xml
from pipeline.urls import parse_url
from tests.api import running
from tests.onvif_device import Device, serving

PASSWORD = "camera-hunter2"
STREAMS = [
    ("sub", 640, 360, "rtsp://127.0.0.1:554/s2"),
    ("main", 1920, 1080, "rtsp://admin:admin@127.0.0.1:554/s1?channel=1"),
    ("tiny", 320, 180, "rtsp://127.0.0.1:554/s3"),
]


@pytest.fixture
def device():
    with serving(Device(profiles=list(STREAMS))) as found:
        yield found


async def cameras_at(device, **search):
    return await find_cameras(Search((device.address,), listen_s=0.5, **search), SystemClock())


async def test_a_camera_is_asked_for_its_streams_which_are_named_by_their_size(device, monkeypatch):
    (camera,) = await cameras_at(device)
    assert (camera.manufacturer, camera.model, camera.name, camera.trouble) == ("Acme", "C-100", "c-100", "")
    assert [(one.name, one.width, one.url) for one in camera.streams] == [
        ("c-100-main", 1920, "rtsp://127.0.0.1:554/s1?channel=1"),
        ("c-100-sub", 640, "rtsp://127.0.0.1:554/s2"),
        ("c-100-sub-2", 320, "rtsp://127.0.0.1:554/s3"),
    ]
    assert stream_named("c-100", [camera])[1].role == "main"
    with pytest.raises(ConfigError, match="there are c-100-main, c-100-sub, c-100-sub-2"):
        stream_named("garage", [camera])


@pytest.mark.parametrize("hosts", [(), ("127.0.0.1",)], ids=["multicast", "unicast"])
async def test_a_probe_finds_the_camera_and_its_own_name(device, hosts):
    found = await discover(hosts, None, SystemClock(), listen_s=1.0, port=device.probe_port)
    assert [one.name for one in found] == ["Front Door"]
    assert found[0].streams[0].role == "main"
    assert all(parse_url(one.url).host == parse_url(found[0].address).host for one in found[0].streams)


@pytest.mark.parametrize("variant", [{"media2": True}, {"services": False}, {"digest": True}])
async def test_what_devices_do_differently(variant, monkeypatch):
    monkeypatch.setenv("CAMERA_PASSWORD", PASSWORD)
    with serving(Device(profiles=list(STREAMS), user="viewer", password=PASSWORD, **variant)) as device:
        (camera,) = await cameras_at(device, user="viewer", password="${CAMERA_PASSWORD}")
    assert [one.width for one in camera.streams] == [1920, 640, 320]
    assert all(PASSWORD not in body + authorization for _, _, body, authorization in device.requests)


async def test_a_refused_login_is_sent_once_and_the_missing_one_is_asked_for(monkeypatch):
    monkeypatch.setenv("CAMERA_PASSWORD", "wrong")
    with serving(Device(profiles=list(STREAMS), user="viewer", password=PASSWORD)) as device:
        (without,) = await cameras_at(device)
        device.requests.clear()
        (wrong,) = await cameras_at(device, user="viewer", password="${CAMERA_PASSWORD}")
    assert "asks for a user name and a password" in without.trouble
    assert "refuses the user name or the password" in wrong.trouble
    assert sum("UsernameToken" in body for _, _, body, _ in device.requests) == 1


BOMB = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;&b;</x>'
OUTSIDE = b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>'


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (BOMB, "declares entities"),
        (OUTSIDE, "declares entities"),
        (b"<a>" * 500 + b"</a>" * 500, "nested deeper"),
        (b"<a>" + b"<b/>" * 30_000 + b"</a>", "elements"),
        (b"x" * (MAX_BYTES + 10), "larger than 256 KiB"),
        (b"\xff\xfe\x00", "not XML"),
        (b"", "not XML"),
        (b"<html>it works</html>", "no media service"),
    ],
)
async def test_a_hostile_reply_is_bounded_and_named(device, monkeypatch, reply, said):
    for action in ("GetDeviceInformation", "GetServices", "GetCapabilities"):
        device.replies[action] = reply
    (camera,) = await cameras_at(device)
    assert said in camera.trouble
    assert camera.streams == ()


async def test_a_device_leads_to_itself_only(device, monkeypatch):
    device.media = f"http://10.255.255.1:{device.port}/onvif/media"
    device.profiles += [("far", 10, 10, "rtsp://camera.example/x"), ("odd", 10, 10, "file:///etc/passwd")]
    (camera,) = await cameras_at(device)
    assert [one.width for one in camera.streams] == [1920, 640, 320]
    assert "'camera.example', which is not its own address" in camera.trouble
    assert "cannot be read" in camera.trouble


@pytest.mark.parametrize(
    ("url", "host", "allowed"),
    [
        ("rtsp://192.168.1.7/a", "192.168.1.7", True),
        ("rtsp://192.168.1.9/a", "192.168.1.7", True),
        ("rtsp://127.0.0.1/a", "192.168.1.7", False),
        ("rtsp://0.0.0.0/a", "192.168.1.7", False),
        ("rtsp://169.254.169.254/a", "192.168.1.7", False),
        ("rtsp://192.168.1.7/a", "8.8.8.8", False),
        ("rtsp://cam.local/a", "cam.local", True),
        ("rtsp://localhost/a", "192.168.1.7", False),
        ("rtsp://[::1]/a", "192.168.1.7", False),
        ("rtsp://192.168.1.7/a\n", "192.168.1.7", False),
        ("rtsp://192.168.1.7/" + "a" * 2000, "192.168.1.7", False),
        ("javascript:alert(1)", "192.168.1.7", False),
        ("", "192.168.1.7", False),
    ],
)
def test_where_a_stream_may_be(url, host, allowed):
    device = parse_url(f"http://{host}/onvif/device_service")
    if allowed:
        assert stream_url(url, device) == url
    else:
        with pytest.raises(SourceUnavailable):
            stream_url(url, device)


def test_a_service_is_asked_at_the_device_whatever_host_it_names():
    device = parse_url("http://192.168.1.7/onvif/device_service")
    assert own_service("http://169.254.169.254:8080/x", device).text == "http://192.168.1.7:8080/x"
    for wrong in ("ftp://192.168.1.7/x", "", "/relative", "http://" + "a" * 3000):
        with pytest.raises(SourceUnavailable):
            own_service(wrong, device)


def test_an_answer_is_believed_about_where_it_came_from():
    device = Device(port=80, xaddrs="http://10.9.9.9/onvif/device_service http://192.168.1.7:81/onvif/device_service")
    answer = device.match(b"<a:MessageID>uuid:mine<")
    assert match_of(answer, "192.168.1.7", "mine").address == "http://192.168.1.7:81/onvif/device_service"
    assert match_of(answer, "192.168.1.8", "mine").address == "http://192.168.1.8/onvif/device_service"
    assert match_of(device.match(b"", "uuid:another"), "192.168.1.7", "mine") is None


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data):
    for read in (parse_xml, lambda one: match_of(one, "192.168.1.7", "mine")):
        with suppress(ValueError):
            read(data)


async def test_a_thousand_answers_are_a_bounded_list():
    def flood(device, probe):
        return [b"garbage", BOMB, *[device.match(probe)] * 200]

    with serving(Device(profiles=list(STREAMS)), flood) as device:
        found = await discover((), None, SystemClock(), listen_s=1.0, port=device.probe_port)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"password": "written-out", "user": "u"}, "password: it is written out"),
        ({"user": "u"}, "belong together"),
        ({"listen_s": 0}, "seconds"),
        ({"listen_s": float("nan")}, "seconds"),
        ({"hosts": ("h",) * 100}, "at most 64"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_name(search, said):
    with pytest.raises(ConfigError, match=said) as caught:
        Search(**search)
    assert "written-out" not in str(caught.value)


@pytest.mark.parametrize("host", ["not a host", "http://", "user@host", "h:99999999"])
async def test_a_host_that_is_none_is_refused(host):
    with pytest.raises(ConfigError):
        await find_cameras(Search((host,), listen_s=0.5), SystemClock())


async def test_an_address_for_attaching_has_the_reference(device, monkeypatch):
    monkeypatch.setenv("CAMERA_PASSWORD", PASSWORD)
    search = Search((device.address,), "a b", "${CAMERA_PASSWORD}", 0.5)
    (camera,) = await find_cameras(search, SystemClock())
    url = stream_address(camera.streams[0], search)
    assert url == "rtsp://a%20b:${CAMERA_PASSWORD}@127.0.0.1:554/s1?channel=1"


async def command(*arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from pipeline.cli.main import main; main()", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"COLUMNS": "220", "CAMERA_PASSWORD": PASSWORD},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def test_the_command_lists_and_attaches_and_the_service_looks_too(tmp_path, unused_tcp_port, monkeypatch):
    monkeypatch.setenv("CAMERA_PASSWORD", PASSWORD)
    login = ("--user", "viewer", "--password", "${CAMERA_PASSWORD}")
    with serving(Device(profiles=list(STREAMS), user="viewer", password=PASSWORD)) as device:
        async with running(tmp_path, unused_tcp_port) as service:
            where = ("--host", device.address, "--seconds", "0.5", "--url", f"http://127.0.0.1:{unused_tcp_port}")
            code, out, _ = await command("discover", *where, *login)
            assert (code, "c-100-main" in out, "1920x1080" in out) == (0, True, True)
            code, out, _ = await command("discover", *where, *login, "--by-service", "--json")
            assert (code, json.loads(out)[0]["streams"][1]["name"]) == (0, "c-100-sub")
            code, out, err = await command("discover", *where, *login, "--attach", "c-100-sub", "--tag", "dock")
            assert (code, err) == (0, "")
            added = (await service.client.get("/v1/streams/c-100-sub")).json()["spec"]
            assert added["url"] == "rtsp://viewer:${CAMERA_PASSWORD}@127.0.0.1:554/s2"
            assert (added["tags"], added["display_name"]) == (["dock"], "Acme C-100")
            code, _, err = await command("discover", *where, *login, "--attach", "garage")
            assert (code, "no stream 'garage' was found" in err) == (2, True)


async def test_no_camera_and_a_password_written_out_end_with_their_codes():
    code, _, err = await command("discover", "--host", "127.0.0.1", "--user", "u", "--password", PASSWORD)
    assert (code, "written out" in err, PASSWORD in err) == (2, True, False)


async def test_the_api_asks_for_an_operator_and_keeps_to_its_addresses(tmp_path, unused_tcp_port, monkeypatch):
    monkeypatch.setenv("HOME_PASSWORD", PASSWORD)
    with serving(Device(profiles=list(STREAMS))) as device:
        async with running(tmp_path, unused_tcp_port, api={"allow_addresses": []}) as service:
            client = service.client
            refused = await client.post("/v1/discover", json={"hosts": [device.address]})
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "hosts.0")
            for body in ({"hosts": ["169.254.169.254"]}, {"hosts": [""]}, {"colour": "red"}, {"seconds": 100}):
                assert (await client.post("/v1/discover", json=body)).status_code == 422
            body = {"user": "u", "password": "${HOME_PASSWORD}", "hosts": ["8.8.8.8"]}
            strange = await client.post("/v1/discover", json=body)
            assert (strange.status_code, "api.allow_secrets" in strange.text) == (422, True)
            key = (await client.post("/v1/keys", json={"name": "v", "role": "analyst"})).json()["key"]
            answer = await client.post("/v1/discover", json={}, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == 403
    assert device.requests == []
