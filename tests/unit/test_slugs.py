"""Slugs for people's words: readable, unique, stable, and without a secret."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.one_stream import named_sinks, site_of_one
from pipeline.config.site import parse_site
from pipeline.config.slugs import stream_slug, unique_slug


@pytest.mark.parametrize(
    ("source", "slug"),
    [
        ("My Camera 1.mp4", "my-camera-1"),
        ("/rec/a#b.mp4", "a-b"),
        ("/rec/what?now.mp4", "what-now"),
        ("file:///rec/My%20Camera%201.mp4", "my-camera-1"),
        ("file:///rec/a#b.mp4", "a-b"),
        ("C:clip 3.mkv", "c-clip-3"),
        ("Straße Łódź Øst.mp4", "strasse-lodz-ost"),
        ("门口.mp4", "stream"),
        ("100% sure.mp4", "100-sure"),
        ("rtsp://u:p@cam.example:554/yard", "yard"),
        ("rtsp://u:p@192.168.1.7:554/1", "192-168-1-7-1"),
        ("rtsp://192.168.1.7/", "192-168-1-7"),
        ("rtsp://u:p@ss/w#rd%1@127.0.0.1:1/cam", "cam"),
        ("rtsp://u:p@ss/w#rd@cam/1", "stream"),
        ("http://cam.example/snap.jpg?user=u&password=qxz", "snap"),
        ("http://cam.example/front%20door.m3u8#t=3", "front-door"),
        ("http://cam.example/${TOKEN}/live", "live"),
        ("${CAMERA}", "camera"),
        ("v4l2:/dev/video0", "video0"),
        ("-", "stream"),
    ],
)
def test_a_stream_is_named_as_a_person_would(source: str, slug: str) -> None:
    assert stream_slug(source) == slug


@given(st.lists(st.text(max_size=60), max_size=30))
def test_slugs_are_unique_legal_and_stable_however_many_collide(texts: list[str]) -> None:
    def named() -> list[str]:
        taken: dict[str, None] = {}
        for text in texts:
            taken[unique_slug(text, "watch", taken)] = None
        return list(taken)

    slugs = named()
    assert len(slugs) == len(texts)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", slug) for slug in slugs)
    assert slugs == named()


def test_every_watch_of_a_command_line_is_kept() -> None:
    questions = [
        "is there a car at gate",
        "is there a car at gate 3",
        "is there a car at gate",
        "Is there a car, at gate?",
    ]
    site = parse_site(site_of_one({}, "x.mp4", None, questions, False, {}, {}))
    assert [watch.question for watch in site.watches.values()] == questions
    again = parse_site(site_of_one({}, "x.mp4", None, [*questions, "is it red?"], False, {}, {}))
    assert list(again.watches)[:4] == list(site.watches)


def test_every_sink_of_a_command_line_is_kept() -> None:
    urls = ["jsonl:a", "jsonl:b", "kafka://h/t", "jsonl:c", "HTTP://h/x"]
    assert named_sinks(urls) == {
        "jsonl": "jsonl:a",
        "jsonl-2": "jsonl:b",
        "kafka": urls[2],
        "jsonl-3": "jsonl:c",
        "http": {"url": urls[4], "signed": False},
    }
