"""The policy of the hosts and files that a stream may lead to. Pure: addresses are resolved elsewhere and judged here.

What a person types is trusted to be meant. What a server names (a redirect, a playlist's entry, a key, a segment) is
not: it may lead nowhere that is more private than the server itself, so that no page of the internet makes this process
ask the local network, itself or its disk.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Literal, TypeAlias

from pipeline.errors import ConfigError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

Reach = Literal["public", "private", "link-local", "loopback", "metadata", "file"]
"""Whom an address is for: everybody, the local network, the cable, this machine, a cloud's machines, this disk."""

_RANK: dict[Reach, int] = {"public": 0, "private": 1, "link-local": 2, "loopback": 3, "file": 4, "metadata": 5}
_NAMED = ("public", "private", "link-local", "loopback", "metadata", "file", "any")
_METADATA = frozenset(
    ip_address(text)
    for text in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    )
)
_SHARED = ip_network("100.64.0.0/10")
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a list: a named reach, a network, or the folder of files."""

    text: str
    reach: str = ""
    network: Network | None = None
    folder: Path | None = None

    def covers(self, address: Address) -> bool:
        """True if the rule is about an address."""
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return self.reach in ("any", reach_of(address))

    def covers_file(self, path: Path) -> bool:
        """True if the rule is about a file. Links are followed first."""
        if self.folder is not None:
            return path.resolve().is_relative_to(self.folder.resolve())
        return self.reach in ("any", "file")


def parse_rule(text: str) -> Rule:
    """The rule in `loopback`, `10.0.0.0/8`, `192.168.1.7` or `file:/var/recordings`. Raises ConfigError."""
    if text in _NAMED:
        return Rule(text, reach=text)
    if text.startswith("file:"):
        folder = Path(text.removeprefix("file://").removeprefix("file:"))
        if folder.is_absolute():
            return Rule(text, folder=folder)
    else:
        try:
            return Rule(text, network=ip_network(text))
        except ValueError:
            pass
    raise ConfigError(
        f"the address rule {text!r} is none; expected one of {', '.join(_NAMED)}, a network such as 10.0.0.0/8, or"
        " file:/FOLDER"
    )


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The addresses that may be opened. `deny` comes first, then `allow`, then the rule of this module.

    With `trusting` an address that a person typed may be any that is not denied; without, as for what comes over the
    network, only a public one.
    """

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    trusting: bool = True

    @staticmethod
    def of(allow: Iterable[str] = (), deny: Iterable[str] = (), trusting: bool = True) -> "AddressPolicy":
        """From the texts of a configuration. Raises ConfigError."""
        return AddressPolicy(tuple(map(parse_rule, allow)), tuple(map(parse_rule, deny)), trusting)

    @property
    def judges_typed(self) -> bool:
        """True if an address that a person typed can be refused, so that it has to be resolved first."""
        return bool(self.deny) or not self.trusting

    def permitted(self, addresses: Iterable[Address], origin: Reach | None) -> tuple[Address, ...]:
        """Those of a host's addresses that may be asked; `origin` is the reach of who named it, None for a person."""
        return tuple(address for address in addresses if self._permits(address, origin))

    def permits_file(self, path: Path, origin: Reach | None) -> bool:
        """True if a local file may be opened; `origin` as in `permitted`."""
        if any(rule.covers_file(path) for rule in self.deny):
            return False
        if any(rule.covers_file(path) for rule in self.allow):
            return True
        return self.trusting if origin is None else origin == "file"

    def _permits(self, address: Address, origin: Reach | None) -> bool:
        if any(rule.covers(address) for rule in self.deny):
            return False
        if any(rule.covers(address) for rule in self.allow):
            return True
        reach = reach_of(address)
        if origin is None:
            return self.trusting or reach == "public"
        return _RANK[reach] <= _RANK[origin] and reach != "metadata"


def reach_of(address: Address) -> Reach:
    """Whom an address is for. One that carries another inside (IPv4 in IPv6) is what it carries."""
    address = _carried(address)
    if address in _METADATA:
        return "metadata"
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_private or address.is_multicast or address.is_reserved or address in _SHARED:
        return "private"
    return "public"


def _carried(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def wider(one: Reach, other: Reach) -> Reach:
    """The one of two reaches that more people have."""
    return min(one, other, key=_RANK.__getitem__)
