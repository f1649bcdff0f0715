"""The page in a real browser: what people do with it, and what goes wrong while they do."""

import re
import time

import pytest

from tests.browser import browser, observed
from tests.clips import steady, write
from tests.live.page_service import LIVE, axe_source, page_service, prefix_proxy

HTML = "<img src=x onerror=alert(1)>"
SCREENS = ("", "attach", "streams/gate", "streams/gate/edit", "watches", "watches/car", "add-watch", "events", "system",
           "streams/gate/areas", "add-sink", "sinks/journal", "docs")  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Open to everybody on this machine, with a stream and a watch that anybody may edit."""
    with page_service(tmp_path_factory.mktemp("page")) as running:
        assert running.api("PUT", "v1/streams/gate", {**LIVE, "tags": ["north"]}).status_code == 201
        assert running.api("PUT", "v1/watches/car", {"question": "is there a car?"}).status_code == 201
        yield running


@pytest.fixture
def context(chromium):
    made = chromium.new_context()
    made.set_default_timeout(20_000)
    yield made
    made.close()


def until(page, expression, seconds=20):
    """Wait for an expression to hold. Playwright's own way evaluates text within the page, which its policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(f"() => Boolean({expression})"):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(100)


def test_every_screen_asks_this_host_only_and_breaks_no_rule_of_its_policy(context, service):
    seen, page = observed(context), context.new_page()
    for screen in SCREENS:
        response = page.goto(service.url + screen)
        assert response.status == 200
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        page.wait_for_timeout(300)
    page.goto(service.url)
    page.wait_for_selector(".tile .has-picture")
    assert seen.hosts == {"127.0.0.1"}
    assert seen.complaints == []


def test_a_wall_shows_pictures_and_states_and_is_filtered(context, service):
    service.api("PUT", "v1/streams/dock", {**LIVE, "paused": True})
    page = context.new_page()
    page.goto(service.url)
    page.wait_for_selector('[data-stream="gate"] .has-picture')
    assert page.locator('[data-stream="gate"] .state').inner_text() == "up"
    assert page.locator('[data-stream="dock"] .state').inner_text() == "paused"
    page.select_option("select[name=state]", "paused")
    page.wait_for_url("**state=paused*")
    assert page.locator(".tile").count() == 1
    page.goto(service.url + "?tag=north")
    assert [one.get_attribute("data-stream") for one in page.locator(".tile").all()] == ["gate"]
    service.api("DELETE", "v1/streams/dock")


def test_a_tile_below_the_screen_is_complete_once_it_is_seen(context, service):
    for n in range(26):
        service.api("PUT", f"v1/streams/z-{n:02}", {**LIVE, "paused": True})
    page = context.new_page()
    page.goto(service.url)
    last = page.locator('[data-stream="z-25"]')
    assert last.locator(".name").text_content() == "z-25"
    assert last.locator("dl").count() == 0
    last.scroll_into_view_if_needed()
    until(page, 'document.querySelector(\'[data-stream="z-25"] [data-part="granted"]\')?.textContent')
    assert "tokens" in last.locator("dl").inner_text()
    for n in range(26):
        service.api("DELETE", f"v1/streams/z-{n:02}")


def test_the_look_that_was_chosen_stays(context, service):
    page = context.new_page()
    page.emulate_media(color_scheme="light")
    page.goto(service.url)
    page.get_by_role("button", name="Switch between light and dark").click()
    for path in ("watches/car", ""):
        page.goto(service.url + path)
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_stream_shows_what_is_allocated_and_answered_as_it_goes_on(context, service):
    page = context.new_page()
    page.goto(service.url + "streams/gate")
    page.wait_for_selector(".live .has-picture")
    page.wait_for_selector("#strip + details")
    before = int(re.sub(r"\D", "", page.locator("#hops").inner_text()))
    until(page, f"Number(document.getElementById('hops').textContent.replace(/\\D/g, '')) > {before}")
    page.locator("#strip + details summary").click()
    until(page, "document.querySelectorAll('#strip + details tbody tr').length > 0")
    page.locator("#strip canvas").focus()
    page.keyboard.press("ArrowLeft")
    until(page, "!document.querySelector('#strip .tip').hidden")
    assert "%" in page.locator("#strip .tip").inner_text()


def test_two_tabs_that_edit_one_watch_do_not_overwrite_each_other(context, service):
    service.api("PUT", "v1/watches/shared", {"question": "is there a dog?"})
    mine, theirs = context.new_page(), context.new_page()
    for page in (mine, theirs):
        page.goto(service.url + "watches/shared")
    theirs.fill("[name=question]", "is there a cat?")
    theirs.locator("form.entry button.primary").click()
    theirs.wait_for_url("**said=saved")
    mine.fill("[name=question]", "is there a horse?")
    mine.locator("form.entry button.primary").click()
    mine.wait_for_selector("#problem")
    assert "Somebody else changed this" in mine.locator("#problem h2").inner_text()
    assert "is there a cat?" in mine.locator("#problem table").inner_text()
    assert mine.input_value("[name=question]") == "is there a horse?"
    assert service.api("GET", "v1/watches/shared").json()["spec"]["question"] == "is there a cat?"
    mine.locator("form.entry button.primary").click()  # seen it, and wanted all the same
    mine.wait_for_url("**said=saved")
    assert service.api("GET", "v1/watches/shared").json()["spec"]["question"] == "is there a horse?"
    service.api("DELETE", "v1/watches/shared")


def test_a_refused_value_is_shown_at_its_field_with_what_was_typed(context, service):
    page = context.new_page()
    page.goto(service.url + "watches/car")
    page.locator("summary", has_text="When it opens").click()
    page.fill("[name=open_at]", "7")
    page.locator("form.entry button.primary").click()
    page.wait_for_selector(".field.wrong")
    assert page.input_value(".field.wrong input") == "7"
    assert page.locator(".field.wrong .error").is_visible()


def test_a_name_that_is_html_is_shown_as_it_is_written(context, service):
    service.api("PUT", "v1/streams/evil", {**LIVE, "display_name": HTML, "tags": ["b"]})
    service.api("PUT", "v1/watches/evil", {"question": HTML, "display_name": HTML, "streams": ["evil"]})
    page = context.new_page()
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for screen in ("", "streams/evil", "streams/evil/edit", "watches", "watches/evil", "events", "system"):
        page.goto(service.url + screen)
        page.wait_for_timeout(300)
        assert page.locator("img[src=x]").count() == 0
    page.goto(service.url)
    assert page.locator('[data-stream="evil"] .name').inner_text() == HTML
    assert dialogs == []
    service.api("DELETE", "v1/watches/evil")
    service.api("DELETE", "v1/streams/evil")


def test_events_arrive_and_are_labelled_by_keys(context, service):
    page = context.new_page()
    page.goto(service.url + "events?watch=car")
    page.wait_for_selector(".inbox-item.arrived", timeout=40_000)
    page.keyboard.press("j")
    page.keyboard.press("f")
    page.wait_for_selector(".chosen .tag")
    event = page.locator(".chosen").get_attribute("data-id")
    assert service.api("GET", f"v1/events/{event}").json()["label"] == "false"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/events/{event}")
    page.locator("#labels button", has_text="True").click()
    page.wait_for_selector('#labels button[aria-pressed="true"]')
    assert service.api("GET", f"v1/events/{event}").json()["label"] == "true"


def test_thresholds_are_tried_on_kept_scores_and_taken_over(context, service):
    page = context.new_page()
    page.goto(service.url + "watches/car")
    page.wait_for_selector("#try-charts canvas")
    page.locator("#try-open_at").fill("0.9")
    assert "openings" in page.locator("#try-outcome").inner_text()
    page.locator("#try button").click()
    assert page.input_value("[name=open_at]") == "0.9"


def test_a_watch_is_tried_on_a_recording_of_the_user(context, service, tmp_path):
    write(tmp_path / "delivery.mp4", steady(60.0))
    page = context.new_page()
    page.goto(service.url + "watches/car")
    page.set_input_files("#recording-file", tmp_path / "delivery.mp4")
    page.locator("#recording button").click()
    page.wait_for_selector("#recording-outcome .found .has-picture", timeout=60_000)
    said = page.locator("#recording-outcome").inner_text()
    assert re.search(r"opened \d+ × in 60 s", said)
    assert "opens at" in said
    page.set_input_files("#recording-file", {"name": "no.mp4", "mimeType": "video/mp4", "buffer": b"no video"})
    page.locator("#recording button").click()
    until(page, "document.querySelector('#recording-outcome').innerText.includes('no.mp4 cannot be read')")


def test_a_zone_is_drawn_by_mouse_and_watched(context, service):
    page = context.new_page()
    page.goto(service.url + "streams/gate/areas")
    page.get_by_role("button", name="Draw a zone").click()
    box = page.locator("#draw").bounding_box()
    corners = [(0.1, 0.2), (0.6, 0.2), (0.6, 0.8), (0.1, 0.8)]
    for across, down in corners:
        page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
    page.keyboard.press("Enter")
    page.get_by_label("Name").fill("dock")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(re.compile("streams/gate"))
    drawn = service.api("GET", "v1/streams/gate").json()["spec"]["zones"]["dock"]
    assert len(drawn) == 4
    assert all(
        abs(got - meant) < 0.02
        for one, two in zip(drawn, corners, strict=True)
        for got, meant in zip(one, two, strict=True)
    )
    page.goto(service.url + "add-watch")
    page.fill("[name=question]", "is there a lorry?")
    page.locator("summary", has_text="More").first.click()
    page.fill("[name=zone]", "dock")
    page.get_by_role("button", name="Add").last.click()
    page.wait_for_url(re.compile("watches/is-there-a-lorry"))
    until(page, "document.body.innerText.includes('gate')")
    service.api("PATCH", "v1/watches/car", {"paused": True})  # now every watch is about the zone
    page.goto(service.url + "streams/gate")
    until(page, "document.querySelector('#shown-at').innerText.includes('Dashed')")
    service.api("PATCH", "v1/watches/car", {"paused": False})
    until(page, "!document.querySelector('#shown-at').innerText.includes('Dashed')")
    service.api("DELETE", "v1/watches/is-there-a-lorry")


def test_forms_work_without_scripts(chromium, service):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(service.url + "add-watch")
    page.fill("[name=question]", "is the gate open?")
    page.locator("form.entry button.primary").click()
    assert page.url.startswith(service.url + "watches/is-the-gate-open")
    page.goto(service.url + "watches")
    assert page.locator("td", has_text="is the gate open?").count() == 1
    page.goto(service.url + "watches/is-the-gate-open")
    page.locator("button", has_text="Remove").click()
    assert page.url.startswith(service.url + "watches?said=removed")
    page.goto(service.url + "streams/gate")
    assert page.locator("noscript").count() or page.locator("img[src*='snapshot.jpg']").count()
    context.close()


def test_it_works_below_a_path_of_a_proxy(context, service):
    seen, page = observed(context), context.new_page()
    with prefix_proxy(service.url, "/cams/") as url:
        page.goto(url)
        page.wait_for_selector('[data-stream="gate"] .has-picture')
        page.locator(".tile a").first.click()
        page.wait_for_selector(".live .has-picture")
        page.goto(url + "watches/car")
        page.locator("form.entry button.primary").click()
        page.wait_for_url(f"{url}watches/car?said=saved")
        page.close()
    assert seen.complaints == []


def test_a_detached_stream_says_so_on_its_open_page(context, service):
    service.api("PUT", "v1/streams/gone", LIVE)
    page = context.new_page()
    page.goto(service.url + "streams/gone")
    page.wait_for_selector(".live .has-picture")
    service.api("DELETE", "v1/streams/gone")
    until(page, "document.getElementById('reason').textContent.includes('detached')")


@pytest.mark.timeout(180)
def test_a_service_that_restarts_is_missed_and_found_again(context, service):
    page = context.new_page()
    page.goto(service.url + "events?watch=car")
    service.stop()
    page.wait_for_selector("#connection:not([hidden])")
    assert "does not answer" in page.locator("#connection").inner_text()
    before = page.locator(".inbox-item").count()
    service.start()
    page.wait_for_selector("#connection.back", timeout=30_000)
    until(page, f"document.querySelectorAll('.inbox-item').length > {before}", 60)


@pytest.mark.timeout(180)
def test_no_serious_fault_of_accessibility(context, service, tmp_path):
    script, page, found = axe_source(tmp_path), context.new_page(), {}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for screen in SCREENS:
            page.goto(service.url + screen)
            page.wait_for_timeout(400)
            page.evaluate(script)
            result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            for one in result["violations"]:
                if one["impact"] in ("serious", "critical"):
                    found[theme, screen, one["id"]] = [node["html"][:120] for node in one["nodes"][:3]]
    assert found == {}


def test_keys_sessions_and_roles(chromium, tmp_path):
    """The first key closes the page; a viewer sees, and is refused what a viewer may not do."""
    with page_service(tmp_path) as service:
        service.api("PUT", "v1/streams/gate", LIVE)
        admin = service.api("POST", "v1/keys", {"name": "root", "role": "admin"}).json()["key"]
        viewer = service.api("POST", "v1/keys", {"name": "looker", "role": "viewer"}, key=admin).json()["key"]
        analyst = service.api("POST", "v1/keys", {"name": "thinker", "role": "analyst"}, key=admin).json()["key"]
        service.api("PUT", "v1/watches/car", {"question": "is there a car?"}, key=admin)
        context = chromium.new_context()
        page = context.new_page()
        page.goto(service.url + "streams/gate")
        page.wait_for_url("**/login?next=**")
        page.fill("#key", "rsk_000000000000_wrong")
        page.locator("main button").click()
        assert "unknown" in page.locator("#problem").inner_text()
        page.goto(service.url + "login?next=/streams/gate")
        page.fill("#key", viewer)
        page.locator("main button").click()
        page.wait_for_url("**/streams/gate")
        cookie = context.cookies()[0]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
        assert viewer not in cookie["value"]
        page.wait_for_selector(".live .has-picture")
        assert page.locator("text=Detach").count() == 0
        refused = page.request.post(
            service.url + "attach", form={"url": LIVE["url"]}, headers={"Origin": service.url[:-1]}
        )
        assert refused.status == 403
        page.goto(service.url + "system")
        assert "Only an admin" in page.locator("main").inner_text()
        page.locator("button", has_text="Log out").click()
        page.wait_for_url("**/login")
        assert context.request.get(service.url + "v1/streams").status == 401
        _session_ends_in_mid_edit(page, context, service, analyst)
        context.close()
        stranger = {"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}
        assert context is not None
        _another_site_changes_nothing(service, viewer, stranger)


def _session_ends_in_mid_edit(page, context, service, key):
    page.goto(service.url + "login?next=/watches/car")
    page.fill("#key", key)
    page.locator("main button").click()
    page.wait_for_url("**/watches/car")
    page.fill("[name=question]", "is there a lorry?")
    context.clear_cookies()
    page.locator("form.entry button.primary").click()
    page.wait_for_selector("#problem")
    assert "session has ended" in page.locator("#problem").inner_text()
    assert page.input_value("[name=question]") == "is there a lorry?"


def _another_site_changes_nothing(service, key, headers):
    import httpx

    with httpx.Client(base_url=service.url) as client:
        assert client.post("v1/session", json={"key": key}, headers=headers).status_code == 403
        assert client.post("v1/session", json={"key": key}).status_code == 200
        name, value = next(iter(client.cookies.items()))
        sent = {**headers, "Cookie": f"{name}={value}"}
        assert client.get("v1/streams", headers=sent).status_code == 200
        refused = client.post("v1/streams/gate/pause", headers=sent)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (403, "Origin")
