"""URLs as people write them: read in one way, filled with secrets, and shown without any part of one."""

import json
import string
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.delivery.database import Database, parse_store
from pipeline.errors import ConfigError
from pipeline.redact import HIDDEN, redact_mllm, redact_url, remember, scrub
from pipeline.sinks.kafka_address import parse_kafka_url
from pipeline.sources.address import Address, parse_address
from pipeline.urls import fill, parse_url

ODD = "@/#?%:&=+[]{}<>|\\^`~!$*();,'\" .-_"
# Words that stand in no message here: a run of three of their letters can only come from the secret.
SECRETS = st.text(st.sampled_from("QXZJVKWqxzjvkw0123456789" + ODD), min_size=4, max_size=24).filter(
    lambda text: text.strip() == text and any(letter.isalpha() for letter in text)
)
HOSTS = ("192.168.1.7", "192.168.1.7:554", "[fe80::1]:554", "cam.example:554", "localhost:554")
PLAIN_HOSTS = ("cam", "cam:554", "cam.example")


@pytest.fixture(autouse=True)
def few_examples_are_known_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.redact.MOST_SECRETS", 8)


def shows(text: str, secret: str) -> bool:
    """Whether three characters of `secret` in a row stand in `text`, letters among them."""
    runs = {secret[i : i + 3] for i in range(len(secret) - 2)}
    return any(run in text for run in runs if any(letter.isalpha() for letter in run))


@given(SECRETS, st.sampled_from(HOSTS))
def test_any_password_is_read_as_it_was_written_before_a_host_that_is_sure(password: str, host: str) -> None:
    assume("%" not in password)  # which may be an encoded character, see below
    read = parse_url(f"rtsp://operator:{password}@{host}/cam/1?x=2#3")
    assert (read.user, read.password, read.authority, read.rest) == ("operator", password, host, "/cam/1?x=2#3")
    assert parse_url(read.text) == read


@given(SECRETS, st.sampled_from([*HOSTS, *PLAIN_HOSTS]))
def test_any_password_is_read_or_refused_and_never_shown(password: str, host: str) -> None:
    url = f"rtsp://operator:{password}@{host}/cam/1"
    assert not shows(redact_url(url), password)
    assert not shows(scrub(f"cannot open {url!r}: 401"), password)
    if " " not in password:  # a space ends a URL in a text that does not know its password
        assert not shows(scrub(f"cannot open {url}: 401"), password)
    refused, address = refusal_of(url)
    assert not shows(scrub(refused), password)
    if address is not None:
        assert not shows(scrub(f"cannot open {url}: 401"), password)
        assert not shows(address.shown, password)
        assert not shows(address.target.split("@")[-1], password)


def refusal_of(url: str) -> tuple[str, Address | None]:
    try:
        return "", parse_address(url)
    except ConfigError as error:
        return str(error), None


@given(SECRETS)
def test_a_secret_in_a_path_or_query_is_not_shown_once_it_came_from_a_reference(secret: str) -> None:
    remember(secret)
    url = fill("http://cam.example/${TOKEN}/live?key=${TOKEN}", lambda _name: secret)
    for text in (url, f"{url} broke", json.dumps({"at": url, "why": secret}), repr(secret), f"<{secret}>"):
        assert not shows(scrub(text), secret), scrub(text)
    assert redact_url(url) == f"http://cam.example/{HIDDEN}/live?{HIDDEN}"


@given(SECRETS, st.sampled_from([*HOSTS, *PLAIN_HOSTS]))
def test_no_part_of_a_password_is_taken_for_a_model(password: str, host: str) -> None:
    plain = f"openai:http://operator:{password}@{host}/v1#Model"
    texts = [redact_mllm(plain), scrub(f"loading {plain!r} now")]
    if " " not in password:
        texts += [scrub(plain), scrub(f"loading {plain} now")]
    for text in texts:
        assert not shows(text, password), text
    encoded = f"openai:http://operator:{quote(password, safe='')}@host.example/v1#org/Model-2B"
    shown = f"openai:http://{HIDDEN}@host.example/v1#org/Model-2B"
    assert scrub(redact_mllm(encoded)) == scrub(encoded) == shown


@given(SECRETS, SECRETS)
def test_what_a_reference_stands_for_arrives_as_it_is(user: str, password: str) -> None:
    secrets = {"USER": user, "PASSWORD": password}
    read = parse_url(fill("rtsp://${USER}:${PASSWORD}@cam/${USER}?p=${PASSWORD}", secrets.__getitem__))
    assert (read.user, read.password, read.authority) == (user, password, "cam")
    assert set(read.rest) <= set(string.ascii_letters + string.digits + "%/?=_.-~")


@pytest.mark.parametrize(
    ("template", "value", "filled"),
    [
        ("${CAM}", "rtsp://u:p@cam/1", "rtsp://u:p@cam/1"),
        ("rtsp://${LOGIN}@cam/1", "u:p@s/s", "rtsp://u:p%40s%2Fs@cam/1"),
        ("rtsp://u:p@${HOST}/1", "10.0.0.7:554", "rtsp://u:p@10.0.0.7:554/1"),
        ("kafka://${BROKERS}/events", "a:9092,b:9092", "kafka://a:9092,b:9092/events"),
        ("jsonl:${FILE}", "/var/a b.jsonl", "jsonl:/var/a b.jsonl"),
        ("rtsp://u:${file:/run/secrets/cam}@cam/1", "p@ss/w#rd%1", "rtsp://u:p%40ss%2Fw%23rd%251@cam/1"),
        ("/clips/${NAME}.mp4", "a#b", "/clips/a#b.mp4"),
    ],
)
def test_a_reference_is_encoded_where_it_stands_inside_a_url_only(template: str, value: str, filled: str) -> None:
    assert fill(template, lambda _name: value) == filled


def test_a_store_keeps_its_path_as_it_is() -> None:
    assert fill("sqlite:///${DIR}/x.db", lambda _name: "/var/a b", whole_path=True) == "sqlite:////var/a b/x.db"
    assert fill("postgresql://u:${P}@h/d", lambda _name: "p@/", whole_path=True) == "postgresql://u:p%40%2F@h/d"


@pytest.mark.parametrize(
    ("url", "user", "password", "authority"),
    [
        ("rtsp://operator:p@ss/w#rd%1@127.0.0.1:1/cam", "operator", "p@ss/w#rd%1", "127.0.0.1:1"),
        ("RTSP://u:p%40ss@cam/1", "u", "p@ss", "cam"),
        ("rtsp://me@mail.example:secret@cam/1", "me@mail.example", "secret", "cam"),
        ("rtsp://u:p:q:r@cam/1", "u", "p:q:r", "cam"),
        ("rtsp://u:[p]@cam/1", "u", "[p]", "cam"),
        ("rtsp://u:pass@[fe80::1%25eth0]/1", "u", "pass", "[fe80::1%25eth0]"),
        ("rtsp://token@cam/1", "token", None, "cam"),
        ("rtsp://u:@cam/1", "u", "", "cam"),
        ("http://cam:80/a@2x.m3u8", None, None, "cam:80"),
        ("https://site.example/@channel/live", None, None, "site.example"),
        ("http://nvr:1984/api?src=rtsp://u:p@10.0.0.1/x", None, None, "nvr:1984"),
        ("udp://@239.0.0.1:5000", "", None, "239.0.0.1:5000"),
        ("srt://:9000?mode=listener", None, None, ":9000"),
    ],
)
def test_urls_of_many_kinds_are_read_as_they_are_meant(
    url: str, user: str | None, password: str | None, authority: str
) -> None:
    read = parse_url(url)
    assert (read.user, read.password, read.authority) == (user, password, authority)


@pytest.mark.parametrize("url", ["rtsp://u:p@ss/w@camera/1", "rtsp://u:p@a.example/w@b.example/1", "rtsp://cam:port/1"])
def test_a_url_that_can_be_read_in_two_ways_or_none_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(ConfigError, match="%40"):
        parse_url(url)


@given(SECRETS, SECRETS)
def test_a_database_is_given_its_password_and_shows_none(user: str, password: str) -> None:
    parsed = parse_store(fill("postgresql://${U}:${P}@h/d", {"U": user, "P": password}.__getitem__, whole_path=True))
    assert (parsed.username, parsed.password, parsed.host, parsed.database) == (user, password, "h", "d")
    assert not shows(redact_url(parsed.render_as_string(hide_password=False)), password)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("sqlite://x.db", "sqlite:///x.db"),
        ("sqlite://st/x.db", "sqlite:///st/x.db"),
        ("sqlite:x.db", "sqlite:///x.db"),
        ("sqlite:/st/x.db", "sqlite:////st/x.db"),
        ("SQLite://x.db", "sqlite:///x.db"),
        ("postgresql:/h/d", "postgresql://h/d"),
        ("postgres:h/d", "postgres://h/d"),
        ("postgresql://h", "postgresql://HOST/NAME"),
    ],
)
def test_a_slip_in_a_store_is_answered_with_what_was_meant(url: str, meant: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        Database(url)
    assert meant in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_store_with_a_login_where_none_belongs_shows_none_of_it() -> None:
    with pytest.raises(ConfigError) as refused:
        Database("sqlite://u:QXZJVK@x.db")
    assert "QXZ" not in str(refused.value)


@given(SECRETS)
def test_a_broker_with_a_login_is_refused_without_it(password: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_kafka_url(f"kafka://u:{password}@192.168.1.7:9092/events")
    assert not shows(str(refused.value), password)


def test_an_unknown_reference_is_shown_by_its_name() -> None:
    assert redact_url("${CAMERA}") == "${CAMERA}"
    assert redact_url("rtsp://u:${file:/run/secrets/cam}@cam/${PATH}") == f"rtsp://{HIDDEN}@cam/{HIDDEN}"


def test_a_whole_url_that_is_secret_is_hidden_in_its_parts_too() -> None:
    remember("rtsp://XQZuser:XQZpass@xqz.example/XQZ/1")
    said = scrub("no route to xqz.example; XQZuser:XQZpass; /XQZ/1; rtsp://xqz.example/XQZ/1")
    assert "xqz" not in said.lower()
