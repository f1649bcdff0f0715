"""The rules of watches as they are configured, and what is refused, by name."""

import pytest

from pipeline.build import build_watch
from pipeline.config.entries import parse_watch
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError
from pipeline.rules import PLAIN, Count, Escalation, Rules, Window
from pipeline.types import WatchQuery

NIGHT = {"zone": "Europe/Berlin", "times": ["daily 22:00-06:00"], "country": "DE", "holidays": ["2026-12-24"]}
WHOLE = {
    "hold_s": 30,
    "max_per_hour": 6,
    "update_every_s": 60,
    "emit": ["opened", "updated"],
    "severity": "warning",
    "escalate": {"after_s": 120, "severity": "critical", "sink": "pager"},
    "schedule": NIGHT,
    "profiles": ["night", "weekend"],
    "count": {"op": ">", "value": 5},
    "describe": True,
}


def built(**rules):
    return build_watch("w", parse_watch("w", {"question": "how many?", **rules})).rules


def test_a_watch_that_names_no_rule_is_as_it_was():
    query = build_watch("car", parse_watch("car", {"question": "is there a car?"}))
    assert query.rules == PLAIN
    assert query.revision == WatchQuery("car", "is there a car?").revision


def test_every_rule_is_read_from_plain_mappings():
    rules = built(**WHOLE)
    assert rules.schedule
    assert rules.schedule.windows == (Window(tuple(range(7)), 1320, 360),)
    assert (rules.schedule.country, len(rules.schedule.holidays)) == ("DE", 1)
    expected = Rules(
        hold_s=30.0,
        max_per_hour=6,
        update_every_s=60.0,
        emit=("opened", "updated"),
        severity="warning",
        escalate=Escalation(120.0, "critical", "pager"),
        schedule=rules.schedule,
        profiles=("night", "weekend"),
        count=Count(">", 5),
        describe=True,
    )
    assert rules == expected
    assert built(choice=["red", " dark  green "]).choice == ("red", "dark green")
    assert built(absent_s=600).wait_s == 600


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ({"open_at": 0.3, "clear_at": 0.5}, "clear_at"),
        ({"hold_s": 5, "absent_s": 5}, "hold_s and absent_s"),
        ({"hold_s": -1}, "hold_s"),
        ({"hold_s": float("inf")}, "hold_s"),
        ({"hold_s": 8 * 3600, "schedule": NIGHT}, "schedule never arms it"),
        ({"absent_s": 9 * 3600, "schedule": NIGHT}, "absent_s is 32400"),
        ({"choice": ["red"]}, "two values"),
        ({"choice": ["red", "Red"]}, "differ"),
        ({"choice": ["red", "<|im_end|>"]}, "differ"),
        ({"choice": ["red", "unknown"]}, "unknown"),
        ({"choice": [""]}, "choice"),
        ({"choice": ["a", "b"], "count": {"op": ">", "value": 1}}, "choice and count"),
        ({"choice": ["a", "b"], "absent_s": 4}, "choice and absent_s"),
        ({"choice": ["a", "b"], "escalate": {"after_s": 4}}, "choice and escalate"),
        ({"count": {"op": ">", "value": -1}}, "count.value is -1; expected 0 or more"),
        ({"count": {"op": "<", "value": 0}}, "no number fulfils"),
        ({"count": {"op": ">=", "value": 0}}, "every number fulfils"),
        ({"count": {"op": "~", "value": 1}}, "count.op"),
        ({"count": {"op": ">", "value": 1000}}, "count.value"),
        ({"count": {"op": ">", "value": "many"}}, "count.value"),
        ({"severity": "critical", "escalate": {"after_s": 4}}, "not above severity critical"),
        ({"severity": "bad"}, "severity"),
        ({"escalate": {"after_s": 0}}, "escalate.after_s"),
        ({"emit": []}, "emit"),
        ({"emit": ["opened"], "update_every_s": 5}, "update_every_s"),
        ({"max_per_hour": 0}, "max_per_hour"),
        ({"schedule": {"zone": "Mars/One", "times": ["daily 1:00-2:00"]}}, "schedule.zone"),
        ({"schedule": {"zone": "UTC", "times": []}}, "schedule.times"),
        ({"schedule": {"zone": "UTC", "times": ["never"]}}, "schedule.times"),
        ({"schedule": {"zone": "UTC", "times": ["daily 1:00-2:00"], "country": "XX"}}, "schedule.country"),
        ({"schedule": {"zone": "UTC", "times": ["daily 1:00-2:00"], "holidays": ["soon"]}}, "schedule.holidays"),
        ({"schedule": {"zone": "UTC", "times": ["daily 1:00-2:00"], "until": 4}}, "schedule.until"),
        ({"profiles": ["No Slug"]}, "profiles"),
        ({"question": "x" * 10_000}, "10000 characters"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(rules, named):
    with pytest.raises(ConfigError, match=named) as refusal:
        parse_watch("w", {"question": "how many?", **rules})
    assert "watches.w" in str(refusal.value)
    assert len(str(refusal.value)) < 600


def test_an_escalation_goes_to_a_sink_of_the_site():
    watch = {"question": "is there a car?", "escalate": {"after_s": 5, "sink": "pager"}}
    with pytest.raises(ConfigError, match=r"watches.w: escalate.sink is 'pager'; the sinks are journal"):
        parse_site({"watches": {"w": watch}})
    parse_site({"watches": {"w": watch}, "sinks": {"pager": "jsonl:pager.jsonl"}})
