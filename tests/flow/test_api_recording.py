"""A watch tried on a recording that is sent to the API."""

import pytest

from tests.api import LIVE, running
from tests.clips import steady, write

ADDRESS = "/v1/watches/thing/recording"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write(path, steady(60.0))
    return path.read_bytes()


@pytest.fixture
async def service(tmp_path, unused_tcp_port):
    streams = {"gate": LIVE | {"tags": ["dock"]}}
    watches = {"thing": {"question": "is a thing in view?", "profiles": ["night"]}}
    async with running(tmp_path, unused_tcp_port, streams=streams, watches=watches) as opened:
        yield opened


async def test_a_watch_is_tried_on_a_recording_and_nothing_of_it_is_kept(service, clip):
    before = {one["id"] for one in (await service.client.get("/v1/events")).json()["items"]}
    response = await service.client.post(ADDRESS, content=clip, params={"name": "gate 1.MP4"}, timeout=60)
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["seconds"] == pytest.approx(60, abs=1.5)
    assert found["realtime_factor"] > 1
    assert found["tokens"] > 0
    assert found["opened"] == sum(event["type"] == "watch.opened" for event in found["events"]) > 0
    assert all(event["picture"] for event in found["events"] if event["type"] == "watch.opened")
    assert len(found["scores"]) >= 58
    after = (await service.client.get("/v1/events")).json()["items"]
    assert not [one for one in after if one["id"] not in before and one["stream"].startswith("trial")]
    assert [one["slug"] for one in (await service.client.get("/v1/streams")).json()["items"]] == ["gate"]
    assert service.reconciler.service.health().live


async def test_other_settings_are_tried_without_being_saved(service, clip):
    never = {"name": "clip.mp4", "settings": '{"hold_s": 3000}'}
    assert (await service.client.post(ADDRESS, content=clip, params=never, timeout=60)).json()["opened"] == 0
    assert "hold_s" not in (await service.client.get("/v1/watches/thing")).json()["spec"]


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("content", "params", "status", "said"),
    [
        (b"", {"name": "clip.mp4"}, 422, "empty"),
        (b"no video at all", {"name": "clip.mp4"}, 422, "clip.mp4 cannot be read as video"),
        (PLAYLIST, {"name": "clip.mp4"}, 422, "clip.mp4 cannot be read as video"),
        (b"x", {"name": "clip.exe"}, 422, ".mp4"),
        (b"x", {"name": "../../etc/passwd"}, 422, "no recording"),
        (b"x", {}, 422, "name"),
        (b"x", {"name": "clip.mp4", "settings": "[]"}, 422, "JSON object"),
        (b"x", {"name": "clip.mp4", "settings": '{"open_at": 7}'}, 422, "open_at"),
        (b"x", {"name": "clip.mp4", "settings": '{"opne_at": 0.7}'}, 422, "opne_at"),
    ],
)
async def test_what_cannot_be_tried_is_refused_by_name(service, content, params, status, said):
    response = await service.client.post(ADDRESS, content=content, params=params, timeout=60)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert said in response.text
    assert "/tmp" not in response.text


async def test_a_recording_has_a_bound_of_its_own(tmp_path, unused_tcp_port, clip):
    watches = {"thing": {"question": "is a thing in view?"}}
    api = {"max_recording_mib": 1, "max_body_kib": 1}
    async with running(tmp_path, unused_tcp_port, watches=watches, api=api) as service:
        large = await service.client.post(ADDRESS, content=b"x" * (2**20 + 1), params={"name": "clip.mp4"})
        assert large.status_code == 413
        assert (await service.client.post("/v1/watches", content=b"x" * 2000)).status_code == 413
        assert len(clip) < 2**20
        small = await service.client.post(ADDRESS, content=clip, params={"name": "clip.mp4"}, timeout=60)
        assert small.status_code == 200


async def test_a_watch_that_is_not_there_takes_none(service, clip):
    response = await service.client.post("/v1/watches/other/recording", content=clip, params={"name": "clip.mp4"})
    assert response.status_code == 404
