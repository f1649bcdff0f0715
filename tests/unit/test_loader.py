"""Site files as people write them: what YAML makes of it is what was typed."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.loader import SiteLoader
from pipeline.config.site import load_site
from pipeline.errors import ConfigError

NAMES = ("1", "007", "on", "off", "yes", "no", "y", "n", "12-30", "0x1f", "1_000", "2024-01-01")


def loaded(text):
    return yaml.load(text, SiteLoader)


def site(tmp_path: Path, text: str):
    (tmp_path / "site.yaml").write_text(text)
    return load_site(tmp_path / "site.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_was_typed_as_a_key_and_where_it_is_referred_to(tmp_path, name):
    found = site(
        tmp_path,
        f"streams: {{{name}: {{url: 'synthetic:?seconds=1', realtime: on}}}}\n"
        f"watches: {{{name}: {{question: 'is it red?', streams: [{name}]}}}}\n",
    )
    assert list(found.streams) == [name]
    assert found.streams[name].realtime is True
    assert found.watches[name].streams == (name,)


def test_settings_are_shared_by_merging_and_ones_own_win(tmp_path):
    found = site(
        tmp_path,
        """
streams:
  a: &camera {url: "synthetic:?seconds=1", stall_s: 10, sample_fps: 1}
  b: &other {<<: *camera, url: "synthetic:?seconds=2"}
  c: {<<: [*other], sample_fps: 4}
  d: {stall_s: 3, <<: *camera}
""",
    )
    assert [found.streams[slug].url[-1] for slug in "abcd"] == ["1", "2", "2", "1"]
    assert [found.streams[slug].stall_s for slug in "abcd"] == [10, 10, 10, 3]
    assert [found.streams[slug].sample_fps for slug in "abcd"] == [1, 1, 4, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", r"line 3: 'a' is written twice"),
        ("a: 1\n'a': 3", r"line 2: 'a' is written twice"),
        ("1: a\n'1': b", r"line 2: '1' is written twice"),
        ("x: &x {p: 1}\ny: {<<: *x, q: 1, q: 2}", r"line 2: 'q' is written twice"),
        ("x: &x {p: 1}\ny: {<<: *x, <<: *x}", r"line 2: '<<'.*<<: \[\*one, \*two\]"),
    ],
)
def test_a_key_written_twice_is_refused_by_line(text, said):
    with pytest.raises(ConfigError, match=said):
        loaded(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 5_000, "- " * 5_000 + "x", "&a [*a, *b" + "]" * 9 + "[" * 99])
def test_what_is_nested_without_end_is_refused(tmp_path, text):
    with pytest.raises(ConfigError):
        site(tmp_path, text)


@given(st.from_regex(r"[A-Za-z0-9_.+~-]{1,12}", fullmatch=True))
def test_any_plain_key_is_the_text_of_it(name):
    assert list(loaded(f"{name}: 1")) == [name] if name not in ("-", "---") and not name.startswith("- ") else True


@given(st.integers(-(10**12), 10**12))
def test_a_whole_number_reads_back_as_it_was_typed(number):
    assert str(loaded(f"x: {number}")["x"]) == str(number)


def test_a_number_where_text_belongs_is_answered_with_how_to_write_it(tmp_path):
    with pytest.raises(ConfigError, match=r"question is a number; expected text, in quotes"):
        site(tmp_path, "watches: {w: {question: 5.50}}")
