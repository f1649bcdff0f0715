"""Wordings of a watch on its page: compared on a recording of the user, shown with their figures, and taken over."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.browser import observed
from tests.clips import steady, write
from tests.live.page_service import LIVE, page_service
from tests.live.test_page import chromium as chromium

OWN, OTHER, WORSE = "is there a car?", "is a car in view?", "is it <b>so</b>?"
SETTINGS = {"open_at": 0.7, "clear_at": 0.3, "confirm": [2, 2], "hold_s": 0.0, "cooldown_s": 0.0}


def figures(question, f1, gain, low, high):
    intervals = {name: [f1 - 0.1, min(f1 + 0.1, 1.0)] for name in ("precision", "recall", "f1")}
    counts = {"right": 9, "false": 2, "missed": 1}
    known = {"precision": f1, "recall": f1, "f1": f1, "intervals": intervals, **counts}
    gained = {"gain": gain, "gain_interval": None if gain is None else [low, high]}
    return {"question": question, "settings": SETTINGS | {"open_at": 0.55}, **known, **gained}


RESULT = {
    "recordings": 1, "names": ["noon.mp4"], "digest": "0123456789ab", "reviewed_s": 7200.0, "truths": 10, "zone": "",
    "count": "", "now": figures(OWN, 0.52, None, 0, 0) | {"settings": SETTINGS}, "proposed": OTHER,
    "wordings": [figures(OWN, 0.6, 0.08, -0.02, 0.18), figures(OTHER, 0.81, 0.29, 0.12, 0.44),
                 figures(WORSE, 0.31, -0.21, -0.4, -0.05)],
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with page_service(tmp_path_factory.mktemp("page")) as running:
        assert running.api("PUT", "v1/streams/gate", LIVE).status_code == 201
        yield running


@pytest.fixture(autouse=True)
def watch(service):
    assert service.api("PUT", "v1/watches/car", {"question": OWN}).status_code < 300
    yield
    service.api("DELETE", "v1/watches/car")


def keep_result(service, *, key=None):
    answer = service.api("POST", "v1/watches/car/wordings/results", RESULT, key=key)
    assert answer.status_code == 201, answer.text


def test_a_recording_is_compared_by_the_labels_of_its_time(chromium, service, tmp_path):
    write(tmp_path / "delivery.mp4", steady(20.0))
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    for second in (2, 16):
        start, end = (began + timedelta(seconds=second + more) for more in (0, 3))
        label = {"stream": "gate", "watch": "car", "start": start.isoformat(), "end": end.isoformat()}
        assert service.api("POST", "v1/labels", label).status_code == 201
    context = chromium.new_context(timezone_id="America/New_York")
    seen, page = observed(context), context.new_page()
    page.goto(service.url + "watches/car")
    page.fill("#compare-words", f"{OTHER}\n\n{WORSE}\n")
    page.set_input_files("#compare-file", {"name": "no.mp4", "mimeType": "video/mp4", "buffer": b"no video"})
    page.locator("#compare button").click()
    page.locator("#compare-outcome", has_text="no.mp4 cannot be read").wait_for(timeout=60_000)
    page.set_input_files("#compare-file", tmp_path / "delivery.mp4")
    local = "at => new Date(at).toLocaleString('sv').replace(' ', 'T')"
    page.fill("#compare-began", page.evaluate(local, began.isoformat()))
    page.locator("#compare button").click()
    page.wait_for_url("**said=compared**", timeout=90_000)
    rows = page.locator("#wordings details[open] tbody tr").all_inner_texts()
    assert [OWN in rows[0], OWN in rows[1], OTHER in rows[2], WORSE in rows[3]] == [True] * 4
    assert "should have been open 2 ×" in page.locator("#wordings").inner_text()
    assert "delivery.mp4" in page.locator("#wordings summary").inner_text()
    assert seen.hosts == {"127.0.0.1"}
    context.close()


def test_figures_that_could_not_be_kept_are_said_to_be_lost_with_what_was_found(chromium, service, tmp_path):
    context = chromium.new_context()
    page = context.new_page()
    found = {"kept": False, "proposed": OTHER, "reason": "no wording was surely better"}
    page.route("**/v1/watches/car/wordings?*", lambda route: route.fulfill(json=found))
    for proposed, shown in ((OTHER, OTHER), (None, found["reason"])):
        found["proposed"] = proposed
        page.goto(service.url + "watches/car")
        page.fill("#compare-words", OTHER)
        page.set_input_files("#compare-file", {"name": "noon.mp4", "mimeType": "video/mp4", "buffer": b"video"})
        page.locator("#compare button").click()
        said = f"could not keep its figures: they are not listed here. Found: {shown}"
        page.locator("#compare-outcome", has_text=said).wait_for()
        assert page.locator("#compare button").is_enabled()
    context.close()


@pytest.mark.parametrize("scripts", [True, False])
def test_a_wording_that_did_better_is_taken_over_with_its_settings(chromium, service, scripts):
    keep_result(service)
    context = chromium.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto(service.url + "watches/car")
    assert page.locator("#compare").is_visible() == scripts
    table = page.locator("#wordings details[open] table")
    assert "0.81 (0.71 to 0.91)" in " ".join(table.inner_text().split())
    assert "+0.29 (+0.12 to +0.44)" in " ".join(table.inner_text().split())
    assert WORSE in table.inner_text()
    button = page.locator("button", has_text="Use this wording")
    assert button.count() == 1
    button.click()
    page.wait_for_url("**said=saved**")
    spec = service.api("GET", "v1/watches/car").json()["spec"]
    assert (spec["question"], spec["open_at"]) == (OTHER, 0.55)
    assert page.locator("button", has_text="Use this wording").count() == 0
    assert "Compared with another question" in page.locator("#wordings").inner_text()
    context.close()


def test_what_somebody_else_has_changed_meanwhile_is_not_overwritten(chromium, service):
    keep_result(service)
    context = chromium.new_context()
    page = context.new_page()
    page.goto(service.url + "watches/car")
    service.api("PATCH", "v1/watches/car", {"open_at": 0.9})
    page.locator("button", has_text="Use this wording").click()
    page.locator("main", has_text="revision").wait_for()
    assert service.api("GET", "v1/watches/car").json()["spec"]["question"] == OWN
    context.close()


def test_a_narrow_screen_shows_all_of_it_in_either_look(chromium, service):
    keep_result(service)
    for theme in ("light", "dark"):
        context = chromium.new_context(viewport={"width": 400, "height": 900}, color_scheme=theme)
        page = context.new_page()
        page.goto(service.url + "watches/car#wordings")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        context.close()


def test_a_viewer_sees_the_figures_and_takes_nothing_over(chromium, tmp_path):
    with page_service(tmp_path) as service:
        admin = service.api("POST", "v1/keys", {"name": "root", "role": "admin"}).json()["key"]
        viewer = service.api("POST", "v1/keys", {"name": "looker", "role": "viewer"}, key=admin).json()["key"]
        service.api("PUT", "v1/watches/car", {"question": OWN}, key=admin)
        keep_result(service, key=admin)
        assert service.api("POST", "v1/watches/car/wordings/results", RESULT, key=viewer).status_code == 403
        context = chromium.new_context()
        page = context.new_page()
        page.goto(service.url + "login?next=/watches/car")
        page.fill("#key", viewer)
        page.locator("main button").click()
        page.wait_for_url("**/watches/car")
        assert "+0.29" in page.locator("#wordings").inner_text()
        assert page.locator("button", has_text="Use this wording").count() == 0
        assert page.locator("#compare").count() == 0
        refused = page.request.post(
            service.url + "watches/car/wording", form={"question": OTHER}, headers={"Origin": service.url[:-1]}
        )
        assert refused.status in (400, 403)
        assert service.api("GET", "v1/watches/car", key=admin).json()["spec"]["question"] == OWN
        context.close()
