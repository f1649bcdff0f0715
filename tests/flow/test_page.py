"""The page without a browser: what it sends, what it refuses, and that it lets nothing else in."""

import asyncio
import io
import re
from html.parser import HTMLParser

from PIL import Image

from pipeline.page.calls import ApiReply, PageRefused
from tests.api import LIVE, running, tiles

SCREENS = ("/", "/attach", "/streams/gate", "/streams/gate/edit", "/streams/gate/areas", "/watches", "/watches/car",
           "/add-watch", "/events", "/system", "/add-sink", "/sinks/hook", "/docs", "/streams/not-there")  # fmt: skip
ELSEWHERE = "https://media.example/gate?view=1"
EVIL = "</script><img src=x onerror=alert(1)>\"'"


class Links(HTMLParser):
    """The links, and the scripts and styles that stand in the document itself."""

    def __init__(self):
        super().__init__()
        self.links, self.inline, self.within = [], [], ""

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [given[name] for name in ("href", "src", "action") if given.get(name)]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.within = tag

    def handle_data(self, data):
        if self.within in ("script", "style") and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag):
        self.within = ""


async def edited(client):
    stream = {**LIVE, "display_name": EVIL, "tags": ["north"]}
    assert (await client.put("/v1/streams/gate", json=stream)).status_code == 201
    assert (await client.put("/v1/watches/car", json={"question": EVIL, "display_name": EVIL})).status_code == 201
    hook = {"url": "webhook:http://127.0.0.1:9/secret", "signed": False}
    assert (await client.put("/v1/sinks/hook", json=hook)).status_code == 201


async def test_screens_link_relatively_escape_everything_and_hold_no_script(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        await edited(service.client)
        for screen in SCREENS:
            response = await service.client.get(screen)
            assert response.status_code == (404 if screen.endswith("there") else 200), screen
            assert "default-src 'none'" in response.headers["content-security-policy"]
            assert EVIL not in response.text
            links = Links()
            links.feed(response.text)
            assert links.inline == [], screen
            assert [one for one in links.links if one.startswith(("/", "http:", "https:", "data:"))] == [], screen


async def test_static_files_are_kept_for_ever_and_modules_find_each_other(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        home = (await service.client.get("/")).text
        waiting, seen = re.findall(r'(?:src|href)="\./(static/[^"]+)"', home), set()
        assert waiting
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            response = await service.client.get(f"/{path}")
            assert response.status_code == 200, path
            assert "immutable" in response.headers["cache-control"]
            folder = path.rpartition("/")[0]
            waiting += [f"{folder}/{name}" for name in re.findall(r'from "\./([^"]+)"', response.text)]
        assert any(path.endswith("state.js") for path in seen)


async def test_screens_and_files_are_packed_for_browsers_that_take_it(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        found = {}
        for taken in ("gzip, br", "identity"):
            headers = {"Accept-Encoding": taken}
            home = await service.client.get("/system", headers=headers)
            path = re.search(r'static/[^"]+/look.css', home.text)[0]
            found[taken] = home, await service.client.get(f"/{path}", headers=headers)
        for packed, plain in zip(found["gzip, br"], found["identity"], strict=True):
            assert packed.headers["content-encoding"] == "gzip"
            assert "content-encoding" not in plain.headers
            assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
            assert "Accept-Encoding" in packed.headers["vary"]
        assert found["gzip, br"][1].text == found["identity"][1].text
        folder = path.rpartition("/")[0]
        for missing in ("nothing.css", "../look.css", "texts.json/", ""):
            assert (await service.client.get(f"/{folder}/{missing}")).status_code == 404


async def test_a_browser_keeps_to_the_look_it_was_told(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        for cookie, shown in (
            ("dark", 'data-theme="dark"'),
            ("light", 'data-theme="light"'),
            ('"><b>', 'data-base="./">'),
        ):
            text = (await service.client.get("/", headers={"Cookie": f"theme={cookie}"})).text
            assert re.search(r"<html[^>]*>", text)[0].endswith(shown if shown.endswith(">") else f"{shown}>")


async def test_a_large_wall_comes_with_the_tiles_that_are_seen_first_and_names_the_others(tmp_path, unused_tcp_port):
    streams = {f"cam-{n:02}": {**LIVE, "paused": True} for n in range(30)}
    async with running(tmp_path, unused_tcp_port, streams=streams) as service:
        wall = (await service.client.get("/")).text
        tiles = wall.partition('id="wall"')[2].partition("</ul>")[0].split('<li class="tile"')[1:]
        assert [f'href="./streams/{slug}"' in tile for slug, tile in zip(streams, tiles, strict=True)] == [True] * 30
        assert all(">paused<" in tile for tile in tiles)
        assert ["<dl" in tile for tile in tiles] == [True] * 24 + [False] * 6
        assert wall.count("<template") == 1
        assert "<template" not in (await service.client.get("/?state=up")).text


async def test_a_wall_whose_streams_cannot_be_read_says_why_within_its_frame(tmp_path, unused_tcp_port, monkeypatch):
    async def refuse(*_args, **_query):
        raise PageRefused(ApiReply(503, {"detail": "the store is away"}))

    async with running(tmp_path, unused_tcp_port) as service:
        monkeypatch.setattr("pipeline.page.screens.streams.ask", refuse)
        for taken in ("gzip", "identity"):
            text = (await service.client.get("/", headers={"Accept-Encoding": taken})).text
            assert "<p>the store is away</p>" in text.partition("<main")[2]
            assert text.rstrip().endswith("</html>")


async def test_tiles_are_made_once_and_only_while_somebody_looks(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE, "dock": {**LIVE, "paused": True}}) as service:
        client, gallery = service.client, service.api.app.state.gallery
        status, pictures = await tiles(client, "gate,dock,nowhere")
        while not pictures:
            status, pictures = await tiles(client, "gate,dock,nowhere")
        assert '"nowhere": null' in status
        assert '"state": "paused"' in status
        (name,) = pictures
        slug, _, number = name.partition(".")
        assert slug == "gate"
        assert Image.open(io.BytesIO(pictures[name])).size == (160, 96)
        again = await asyncio.gather(*(tiles(client, "gate") for _ in range(8)))
        assert len({jpeg for _, found in again for jpeg in found.values()}) <= 2
        _, found = await tiles(client, f"gate:{max(int(next(iter(f)).split('.')[1]) for _, f in again)}")
        assert all(int(one.split(".")[1]) > int(number) for one in found)
        assert gallery.looked_at
        async with asyncio.timeout(30):
            while gallery.looked_at:
                await asyncio.sleep(0.2)
        for wrong in ("Gate", "gate:x", ",".join(f"s{n}" for n in range(300))):
            assert (await client.get("/v1/tiles", params={"streams": wrong})).status_code == 422


async def test_events_are_counted(tmp_path, unused_tcp_port):
    watches = {"car": {"question": "a car?"}}
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}, watches=watches) as service:
        async with asyncio.timeout(30):
            while not (events := (await service.client.get("/v1/events?type=watch.opened")).json()["items"]):
                await asyncio.sleep(0.1)
        await service.client.put(f"/v1/events/{events[0]['id']}/label", json={"label": "false"})
        counts = (await service.client.get("/v1/events/counts")).json()["items"]
        assert {"stream": "gate", "watch": "car", "type": "watch.opened", "label": "false", "count": 1} in counts
        late = (await service.client.get("/v1/events/counts", params={"since": "2999-01-01T00:00:00Z"})).json()
        assert late == {"items": []}


async def test_a_session_stands_for_a_key_until_either_ends(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, streams={"gate": {**LIVE, "paused": True}}) as service:
        client = service.client
        root = (await client.post("/v1/keys", json={"name": "root", "role": "admin"})).json()["key"]
        bearer = {"Authorization": f"Bearer {root}"}
        key = (await client.post("/v1/keys", json={"name": "look", "role": "viewer"}, headers=bearer)).json()["key"]
        assert (await client.get("/", follow_redirects=False)).headers["location"].endswith("login?next=/")
        assert (await client.post("/v1/session", json={"key": "rsk_x_y"})).status_code == 401
        opened = await client.post("/v1/session", json={"key": key})
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Path" not in cookie
        client.cookies.clear()
        mine = {"Cookie": cookie.partition(";")[0]}
        assert (await client.get("/v1/session", headers=mine)).json()["role"] == "viewer"
        assert (await client.get("/", headers=mine)).status_code == 200
        assert (await client.post("/v1/streams/gate/resume", headers=mine)).status_code == 403
        stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert mine["Cookie"].partition("=")[2].encode() not in stored
        await client.delete("/v1/keys/look", headers=bearer)
        assert (await client.get("/v1/session", headers=mine)).status_code == 401

        again = (await client.post("/v1/session", json={"key": root})).headers["set-cookie"].partition(";")[0]
        client.cookies.clear()
        assert (await client.get("/v1/keys", headers={"Cookie": again})).status_code == 200
        assert (await client.delete("/v1/session", headers={"Cookie": again})).status_code == 204
        assert (await client.get("/v1/keys", headers={"Cookie": again})).status_code == 401


async def test_a_page_of_another_site_changes_nothing_even_where_no_key_is_needed(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}) as service:
        client, other = service.client, {"Origin": "https://evil.example"}
        for headers in (other, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
            assert (await client.post("/v1/streams/gate/pause", headers=headers)).status_code == 403
            assert (await client.post("/attach", data={"url": "synthetic:"}, headers=headers)).status_code == 403
        same = {"Origin": f"http://127.0.0.1:{unused_tcp_port}"}
        for headers in (same, {"Sec-Fetch-Site": "same-origin"}, {}):
            response = await client.post("/v1/watches/none/pause", headers=headers)
            assert response.status_code == 404, response.text


async def test_wrong_keys_are_counted_in_the_login_as_everywhere(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        client = service.client
        await client.post("/v1/keys", json={"name": "root", "role": "admin"})
        answers = [(await client.post("/login", data={"key": "rsk_a_b"})).status_code for _ in range(12)]
        assert answers[0] == 401
        assert answers[-1] == 429


async def test_the_login_leads_back_into_the_page_only(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        for away in ("//evil.example", "https://evil.example", "/\\evil.example"):
            response = await service.client.get("/login", params={"next": away})
            assert response.headers["location"] == "./"


async def test_the_preview_shows_a_first_picture_and_attaches_nothing(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        response = await service.client.post("/v1/streams/preview.jpg", json={"url": LIVE["url"]})
        assert response.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(response.content)).size == (160, 96)
        assert (await service.client.get("/v1/streams")).json()["items"] == []
        refused = await service.client.post("/v1/streams/preview.jpg", json={"url": "file:/etc/passwd"})
        assert refused.status_code == 422


async def test_a_sink_is_added_edited_and_removed(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        client = service.client
        form = {"url": "webhook:http://127.0.0.1:9/hook", "slug": "hook", "signed.there": "1"}
        form["filter.types"] = "watch.*"
        added = await client.post("/add-sink", data=form)
        assert added.headers["location"].endswith("system?said=added_sink")
        kept = (await client.get("/v1/sinks/hook")).json()
        assert kept["spec"]["signed"] is False
        assert kept["spec"]["filter"] == {"types": ["watch.*"]}
        assert "watch.*" in (await client.get("/sinks/hook")).text
        revision = {"revision": str(kept["revision"])}
        refused = await client.post("/sinks/hook", data={**form, **revision, "url": "ftp://nowhere"})
        assert refused.status_code == 422
        assert "ftp" in refused.text
        stale = await client.post("/sinks/hook", data={**form, "revision": "999"})
        assert stale.status_code == 412
        saved = await client.post("/sinks/hook", data={**form, **revision, "filter.types": "stream.*"})
        assert saved.status_code == 303
        assert (await client.get("/v1/sinks/hook")).json()["spec"]["filter"] == {"types": ["stream.*"]}
        assert (await client.post("/sinks/hook/remove")).status_code == 303
        assert (await client.get("/v1/sinks/hook")).status_code == 404


async def test_profiles_are_armed_and_disarmed(tmp_path, unused_tcp_port):
    watches = {"car": {"question": "a car?", "profiles": ["night"]}}
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}, watches=watches) as service:
        for action, armed in (("arm", True), ("disarm", False)):
            assert (await service.client.post(f"/system/profiles/night/{action}")).status_code == 303
            (profile,) = (await service.client.get("/v1/profiles")).json()["items"]
            assert profile["armed"] is armed
            assert "night" in (await service.client.get("/system")).text


async def test_what_a_watch_missed_is_marked_and_taken_back(tmp_path, unused_tcp_port):
    watches = {"car": {"question": "a car?"}}
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}, watches=watches) as service:
        client = service.client
        form = {"stream": "gate", "start": "2026-01-02T03:04:05", "end": "2026-01-02T03:05:00.000Z", "note": "a van"}
        assert (await client.post("/watches/car/missed", data=form)).status_code == 303
        (label,) = (await client.get("/v1/labels")).json()["items"]
        assert (label["kind"], label["note"], label["start"][:19]) == ("missed", "a van", "2026-01-02T03:04:05")
        assert "a van" in (await client.get("/watches/car")).text
        assert (await client.post(f"/watches/car/missed/{label['id']}/withdraw")).status_code == 303
        assert (await client.get("/v1/labels")).json()["items"] == []


async def test_a_live_picture_elsewhere_is_a_link_and_no_more(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, streams={"gate": {**LIVE, "live_url": ELSEWHERE}}) as service:
        client, links = service.client, Links()
        response = await client.get("/streams/gate")
        links.feed(response.text)
        assert [one for one in links.links if one.startswith("http")] == [ELSEWHERE]
        assert f'src="{ELSEWHERE}"' not in response.text
        for wrong in ("javascript:alert(1)", "https://u:p@media.example/gate", "//media.example", "https://"):
            refused = await client.put("/v1/streams/dock", json={**LIVE, "live_url": wrong})
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "live_url"), wrong


async def test_the_calls_of_the_api_are_listed_without_a_key_and_without_another_host(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        await service.client.post("/v1/keys", json={"name": "root", "role": "admin"})
        response = await service.client.get("/docs")
        assert "default-src 'none'" in response.headers["content-security-policy"]
        for path, methods in (await service.client.get("/openapi.json")).json()["paths"].items():
            assert path in response.text
            assert all(one["operationId"] in response.text for one in methods.values())
