"""Where a stream may lead: what a person typed is trusted, what a server names is not."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.sources.policy import AddressPolicy, parse_rule, reach_of

DEFAULT = AddressPolicy()
API = AddressPolicy.of(("loopback", "10.0.0.0/8", "file:/var/recordings"), trusting=False)


@pytest.mark.parametrize(
    ("text", "reach"),
    [
        ("93.184.216.34", "public"),
        ("10.1.2.3", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("169.254.10.1", "link-local"),
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("0.0.0.0", "loopback"),
        ("169.254.169.254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("::1", "loopback"),
        ("::", "loopback"),
        ("fe80::1", "link-local"),
        ("fd12::1", "private"),
        ("fd00:ec2::254", "metadata"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "metadata"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("2606:2800:220:1::1", "public"),
    ],
)
def test_an_address_is_for_those_who_can_reach_it(text: str, reach: str) -> None:
    assert reach_of(ip_address(text)) == reach


ADDRESSES = st.sampled_from(["93.184.216.34", "10.1.2.3", "169.254.10.1", "127.0.0.1", "::1"]).map(ip_address)
METADATA = ip_address("169.254.169.254")


@given(ADDRESSES)
def test_a_person_may_type_any_address(address) -> None:
    assert DEFAULT.permitted([address, METADATA], None) == (address, METADATA)
    assert not DEFAULT.judges_typed


@given(ADDRESSES, ADDRESSES)
def test_a_server_leads_to_nothing_that_is_more_private_than_itself(server, target) -> None:
    order = ["public", "private", "link-local", "loopback"]
    allowed = order.index(reach_of(target)) <= order.index(reach_of(server))
    assert DEFAULT.permitted([target], reach_of(server)) == ((target,) if allowed else ())
    assert DEFAULT.permitted([METADATA], reach_of(server)) == ()
    assert not DEFAULT.permits_file(Path("/etc/hostname"), reach_of(server))


def test_of_a_name_with_several_addresses_only_the_permitted_are_asked() -> None:
    public, inner = ip_address("93.184.216.34"), ip_address("127.0.0.1")
    assert DEFAULT.permitted([inner, public], "public") == (public,)


def test_without_trust_a_person_may_type_what_is_public_or_allowed() -> None:
    assert API.judges_typed
    typed = [ip_address(text) for text in ("93.184.216.34", "127.0.0.1", "10.9.9.9", "192.168.1.1", "169.254.169.254")]
    assert [str(address) for address in API.permitted(typed, None)] == ["93.184.216.34", "127.0.0.1", "10.9.9.9"]


def test_without_trust_a_file_lies_in_an_allowed_folder_links_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "recordings", tmp_path / "other"
    inside.mkdir()
    outside.write_text("x")
    (inside / "link").symlink_to(outside)
    policy = AddressPolicy.of([f"file:{inside}"], trusting=False)
    assert policy.permits_file(inside / "clip.mp4", None)
    assert not policy.permits_file(inside / "link", None)
    assert not policy.permits_file(inside / ".." / "other", None)
    assert DEFAULT.permits_file(outside, None)


def test_what_is_denied_is_denied_to_all() -> None:
    policy = AddressPolicy.of(allow=["any"], deny=["192.168.0.0/16", "metadata", "file:/etc"])
    assert policy.permitted([ip_address("192.168.1.1"), METADATA, ip_address("10.0.0.1")], None) == (
        ip_address("10.0.0.1"),
    )
    assert not policy.permits_file(Path("/etc/passwd"), None)
    assert policy.permits_file(Path("/srv/x"), "public")


def test_what_is_allowed_is_followed_from_anywhere() -> None:
    assert AddressPolicy.of(["10.0.0.0/8"]).permitted([ip_address("10.0.0.1")], "public") == (ip_address("10.0.0.1"),)


@pytest.mark.parametrize("text", ["", "local", "10.0.0.1/8", "file:var", "http://x", "10.0.0.0/33"])
def test_a_rule_that_is_none_is_refused_with_what_is_known(text: str) -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.0/8"):
        parse_rule(text)
