"""Tiles as they travel between a node, the head and a browser."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.api.tile_form import tile_form, tiles_of

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SLUGS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)


@given(st.dictionaries(SLUGS, st.tuples(st.integers(0, 10**9), st.binary(max_size=300), st.booleans()), max_size=5))
def test_tiles_come_as_they_were_sent(sent):
    status = {slug: {"captured_at": AT.isoformat() if dated else None} for slug, (_, _, dated) in sent.items()}
    form = tile_form(status, {f"{slug}.{number}": jpeg for slug, (number, jpeg, _) in sent.items()})
    found = tiles_of(form.headers["content-type"], form.body)
    assert {slug: (one.number, one.jpeg, one.captured_at is not None) for slug, one in found.items()} == sent


@pytest.mark.parametrize("kind", ["text/html", "multipart/form-data", "multipart/form-data; boundary=other"])
@pytest.mark.parametrize("body", [b"", b"<html>", b"--x\r\n\r\n{}\r\n--x--"])
def test_what_is_no_form_is_refused(kind, body):
    with pytest.raises(ValueError, match=r"Content-Type|no part"):
        tiles_of(kind, body)
