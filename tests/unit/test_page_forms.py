"""Forms of JSON Schemas: what goes in comes out, and a field that is new in the API has its place."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline.page
from pipeline.api.views import spec_schema
from pipeline.page.forms import form_groups, spec_of
from pipeline.page.render import base_of, number, span, text
from pipeline.page.screens import sinks, watches
from pipeline.page.screens.entries import merging

SCHEMA = {
    "properties": {
        "question": {"type": "string"},
        "share": {"type": "number", "default": 0.5},
        "times": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "names": {"type": "array", "items": {"type": "string"}},
        "confirm": {"type": "array", "prefixItems": [{}, {}]},
        "paused": {"type": "boolean", "default": False},
        "inner": {"anyOf": [{"type": "object", "properties": {"op": {"enum": ["=", ">"]}}}, {"type": "null"}]},
        "free": {"type": "object", "additionalProperties": {}},
    },
    "required": ["question"],
}
WORD = st.text("abcxyz019äé", min_size=1, max_size=8)
SPECS = st.fixed_dictionaries(
    {"question": WORD},
    optional={
        "share": st.floats(0, 1, width=16),
        "times": st.integers(1, 10**6),
        "names": st.lists(WORD, min_size=1, max_size=4),
        "confirm": st.tuples(st.integers(1, 9), st.integers(1, 9)).map(list),
        "paused": st.just(True),
        "inner": st.fixed_dictionaries({"op": st.sampled_from("=>")}),
        "free": st.dictionaries(WORD, st.lists(st.integers(), min_size=1, max_size=2), min_size=1, max_size=2),
    },
)


def as_sent(groups):
    """What a browser sends of a form that nobody touched."""
    form = {}
    for field in (field for group in groups for field in group.fields):
        if field.kind == "pair":
            form |= {f"{field.name}.{i}": field.value[i] for i in (0, 1)}
        elif field.kind == "flag":
            form[f"{field.name}.there"] = "1"
            form |= {field.name: "yes"} if field.value else {}
        else:
            form[field.name] = field.value
    return form


@given(SPECS)
def test_a_form_that_nobody_touched_says_what_it_was_filled_with(spec):
    assert spec_of(SCHEMA, as_sent(form_groups("watch", SCHEMA, spec, {}, ()))) == spec


def test_what_no_group_names_is_in_the_last_one():
    groups = form_groups("watch", SCHEMA, {}, {"times": "no"}, [("basics", ("question",)), ("rule", ("inner",))])
    assert [[field.name for field in group.fields] for group in groups][:2] == [["question"], ["inner.op"]]
    assert "free" in [field.name for field in groups[-1].fields]
    assert groups[-1].open  # for the error


@pytest.mark.parametrize("kind", ["stream", "watch", "sink"])
def test_every_field_of_the_api_is_in_its_form_with_a_label(kind):
    schema = sinks.sink_schema() if kind == "sink" else spec_schema(kind)
    fields = [f for group in form_groups(kind, schema, {}, {}, watches.GROUPS) for f in group.fields]
    assert {field.name.partition(".")[0] for field in fields} == set(schema["properties"])
    assert all(field.label and not field.label.startswith(f"{kind}.") for field in fields)


def test_what_is_hidden_of_a_sink_is_not_what_it_is():
    assert sinks.without_hidden({"url": "https://hooks.example/***", "signed": False}) == {"signed": False}


def test_what_cannot_be_read_stays_as_it_was_typed():
    assert spec_of(SCHEMA, {"question": "a", "times": "many", "free": "{"}) == {
        "question": "a", "times": "many", "free": "{",
    }  # fmt: skip


def test_a_merge_takes_away_what_is_no_longer_wanted():
    assert merging({"a": [1]}, {"a": [0], "b": [2]}) == {"b": None, "a": [1]}
    assert merging([1], {"a": 1}) == [1]


def test_links_lead_to_the_root_from_every_depth():
    assert [base_of(path) for path in ("/", "/watches", "/watches/car", "/system/keys/a/revoke")] == [
        "./", "./", "../", "../../../",
    ]  # fmt: skip


def test_numbers_have_units_and_gaps():
    assert [number(1234567), number(None), span(None), span(0.25), span(75), span(150), span(90000)] == [
        "1\u202f234\u202f567", "–", "–", "0.2 s", "75 s", "2 min", "25 h",
    ]  # fmt: skip


def test_texts_that_the_templates_and_modules_name_are_there():
    import re

    room = Path(pipeline.page.__file__).parent
    named = set()
    for file in [*room.rglob("*.html"), *room.rglob("*.js"), *room.rglob("*.py")]:
        named |= set(re.findall(r"""(?<![\w.])(?:t|text)\(\s*["']([a-z][\w.]+)["']""", file.read_text("utf-8")))
    missing = {name for name in named if not name.endswith(".") and text(name) == name}
    assert missing == set()
    assert json.loads((room / "static" / "texts.json").read_text("utf-8"))
