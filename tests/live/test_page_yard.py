"""What a new user does, with the yard's camera and its MLLM: attach, ask, see the event arrive, open it, mark it."""

import asyncio

import pytest

from tests.browser import browser, observed
from tests.live.cameras import has_rtsp_server, rtsp_camera
from tests.live.page_service import page_service
from tests.services import require

SEED = 800000
SECONDS = 14.0


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    pytest.importorskip("torch", reason="the yard's MLLM needs the extra embedded")
    require(has_rtsp_server(), "no GStreamer RTSP server with x264enc in the distribution's Python")
    from samples.yard.demo import film

    (filmed,) = asyncio.run(film((SEED,), SECONDS, 2.0, tmp_path_factory.mktemp("film")))
    with rtsp_camera(filmed.film) as made:
        yield made


@pytest.mark.timeout(400)
def test_a_new_user_attaches_asks_and_sees_the_event(camera, tmp_path):
    with page_service(tmp_path, mllm="yard") as service, browser() as chromium:
        context = chromium.new_context()
        context.set_default_timeout(40_000)
        seen, page = observed(context), context.new_page()
        page.goto(service.url)
        page.locator(".empty a", has_text="Attach a stream").click()
        page.fill("[name=url]", camera.url)
        page.fill("[name=display_name]", "The yard")
        page.locator("button", has_text="Look at it first").click()
        page.wait_for_selector("#probe .picture.has-picture")
        assert "h264" in page.locator("#probe").inner_text()
        page.locator("button[value=attach]").click()
        page.wait_for_selector(".live .has-picture")
        assert page.locator("h1").inner_text() == "The yard"

        page.locator("a", has_text="Add a watch").first.click()
        page.fill("[name=question]", "is a vehicle in view?")
        page.locator("form.entry button.primary").click()
        page.wait_for_url("**/watches/is-a-vehicle-in-view**")

        page.goto(service.url + "events?type=")
        arrived = page.locator(".inbox-item", has=page.locator(".state-open")).first
        arrived.wait_for(timeout=90_000)
        arrived.locator("a").click()
        assert page.locator("h1").inner_text() == "is a vehicle in view?"
        page.locator("#labels button", has_text="True").click()
        page.wait_for_selector('#labels button[aria-pressed="true"]')
        page.locator("a", has_text="Tune the watch").click()
        page.wait_for_selector("#try-charts canvas")
        assert seen.hosts == {"127.0.0.1"}
        assert seen.complaints == []
        context.close()
