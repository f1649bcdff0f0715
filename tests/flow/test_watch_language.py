"""Watches with rules, from the API to the events of a running service."""

from dataclasses import replace

import pytest

from pipeline.errors import ConfigError, MLLMUnavailable
from pipeline.loop import watch_stream
from pipeline.rules import Rules
from pipeline.testing import ScriptedMLLM, ScriptedSource
from tests.api import LIVE, running
from tests.flow.test_cli_remote import asked, resadapt
from tests.flow.test_loop import CAR, VAN, build, seconds
from tests.flow.test_service import until


def types_of(service, watch):
    return [one.event.type for one in reversed(service.reconciler.history().events()) if one.event.watch_id == watch]


async def test_a_watch_of_a_profile_is_asked_while_that_is_armed(tmp_path, unused_tcp_port):
    watch = {"question": "is there a car?", "profiles": ["night"], "hold_s": 1, "severity": "warning"}
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}, watches={"car": watch}) as service:
        await until(lambda: service.reconciler.history().answers())
        listed = await asked(service, "profile", "list")
        assert listed == [{"slug": "night", "armed": False, "watches": ["car"]}]
        assert types_of(service, "car") == []
        assert (await asked(service, "profile", "arm", "night"))["armed"]
        await until(lambda: types_of(service, "car"))
        opened = service.reconciler.history().events()[0].event
        assert (opened.data["severity"], opened.data["rule"]["name"]) == ("warning", "hold_s")
        await resadapt(service, "profile", "disarm", "night")
        await until(lambda: types_of(service, "car")[-1] == "watch.cleared")
        with pytest.raises(ConfigError, match="no profile 'day'; the profiles are night"):
            await resadapt(service, "profile", "arm", "day")


async def test_kept_answers_are_judged_by_other_settings(tmp_path, unused_tcp_port):
    watch = {"question": "is there a car?"}
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}, watches={"car": watch}) as service:
        await until(lambda: types_of(service, "car"))
        (item,) = await asked(service, "watch", "test", "car", "--kept", "1h", "--set", "hold_s=3000")
        assert item["opened_before"] >= 1
        assert (item["opened"], item["found"]) == (0, [])
        assert item["known"] == item["hops"] > 0
        assert "gate" in await resadapt(service, "watch", "test", "car", "--kept", "1h")
        for settings, named in ((("question=is it day?",), "question"), (("clear_at=0.9",), "clear_at")):
            with pytest.raises(ConfigError, match=named):
                given = (part for one in settings for part in ("--set", one))
                await resadapt(service, "watch", "test", "car", "--kept", "1h", *given)
        with pytest.raises(ConfigError, match="expected a span"):
            await resadapt(service, "watch", "test", "car", "--kept", "a day")


async def test_a_watch_that_contradicts_itself_is_refused_and_nothing_is_kept_of_it(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        for body in (
            {"question": "how many?", "count": {"op": ">", "value": -1}},
            {"question": "which?", "choice": ["one"]},
            {"question": "is it so?", "hold_s": 1, "absent_s": 1},
        ):
            refused = await service.client.post("/v1/watches", json={"slug": "w", **body})
            assert refused.status_code == 422, refused.text
        assert (await service.client.get("/v1/watches")).json()["items"] == []
        added = await asked(service, "watch", "add", "How many cars?", "--count", ">5", "--hold", "30", "--name", "w")
        assert added["spec"]["count"] == {"op": ">", "value": 5}


class Telling(ScriptedMLLM):
    """An MLLM that says `said`, or fails with it."""

    said: object = '{"sentence": "A red car stops\\nat the gate."}'

    async def say(self, context, questions, most=64, schema=None):
        if isinstance(self.said, Exception):
            raise self.said
        return [self.said] * len(questions)


async def opened(said):
    mllm = Telling()
    mllm.said = said
    query = replace(CAR, rules=Rules(describe=True))
    run, runtime = build(query, VAN, mllm=mllm)
    await watch_stream(run, ScriptedSource(seconds(2)), runtime)
    car, van = runtime.outbox.events
    assert "text" not in van.data
    return car.data.get("text"), runtime.metrics.registry.get_sample_value(
        "resadapt_descriptions_missing_total", {"stream": "yard"}
    )


async def test_what_is_seen_when_a_watch_opens_is_said_in_a_sentence():
    assert await opened(Telling.said) == ("A red car stops at the gate.", None)
    assert await opened('{"sentence": "A red car st') == ("A red car st", None)
    assert await opened("plain words") == ("plain words", None)
    text, _ = await opened("x" * 10_000)
    assert len(text) == 240


async def test_an_event_that_cannot_be_described_goes_out_all_the_same():
    assert await opened(MLLMUnavailable("away")) == (None, 1.0)
