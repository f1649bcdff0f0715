"""Pictures that are missing from an H.264 stream, by the numbers in it (ITU-T H.264, 7.3 and 7.4). Pure.

Each picture that others may be built on is numbered, modulo a power of two that the stream states. A decoder fills a
gap with copies and marks nothing, whether the picture was lost on the way or left out by a camera in haste.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LOOK_BYTES: Final = 8192
"""How much of a packet is looked at, in bytes: the first slice stands behind parameter sets and messages, if at all."""

HEADER_BYTES: Final = 64
"""How much of a slice is looked at, in bytes: the number stands in its first few."""

_SLICE, _IDR, _SPS, _PPS = 1, 5, 7, 8
_WITH_CHROMA: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles that state their chroma format."""

START: Final = b"\x00\x00\x01"


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Fields of a sequence parameter set: how many bits a picture's number has, whether gaps are allowed, whether
    slices name a colour plane."""

    bits: int
    gaps: bool
    planes: bool


class PictureNumbers:
    """Follows the numbers of one connection. `extradata` are the parameter sets of the container, if it has them."""

    def __init__(self, extradata: bytes | None = None) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._sequence_of: dict[int, int] = {}
        self._before: int | None = None
        extradata = extradata or b""
        self._length_bytes = (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else 0
        for unit in _of_record(extradata) if self._length_bytes else _units(extradata, 0):
            self._learn(unit)

    def missing(self, packet: bytes) -> bool:
        """True if a picture is missing just before that of `packet`. False where the packet is not understood."""
        for unit in _units(packet[:LOOK_BYTES], self._length_bytes):
            kind = unit[0] & 31
            if kind in (_SLICE, _IDR):
                try:
                    return self._follow(unit, kind)
                except (IndexError, KeyError):
                    self._before = None
                    return False
            self._learn(unit)
        return False

    def _follow(self, unit: bytes, kind: int) -> bool:
        bits = _Bits(_plain(unit[1:HEADER_BYTES]))
        bits.number(), bits.number()  # its first macroblock and its type
        sequence = self._sequences[self._sequence_of[bits.number()]]
        if sequence.planes:
            bits.take(2)
        number, before, turn = bits.take(sequence.bits), self._before, 1 << sequence.bits
        missing = False
        if before is not None and kind != _IDR and not sequence.gaps:
            missing = number not in (before, (before + 1) % turn)
        if unit[0] & 0x60:  # others may be built on it
            self._before = number
        elif missing:
            self._before = (number - 1) % turn
        return missing

    def _learn(self, unit: bytes) -> None:
        """Take in a parameter set; one that is not understood is passed over."""
        try:
            bits = _Bits(_plain(unit[1:]))
            if unit[0] & 31 == _SPS:
                profile = bits.take(8)
                bits.take(16)
                name = bits.number()
                self._sequences[name] = _sequence(bits, profile)
            elif unit[0] & 31 == _PPS:
                name = bits.number()
                self._sequence_of[name] = bits.number()
        except IndexError:
            return


def _sequence(bits: "_Bits", profile: int) -> _Sequence:
    planes = False
    if profile in _WITH_CHROMA:
        chroma = bits.number()
        planes = chroma == 3 and bool(bits.take(1))
        bits.number(), bits.number(), bits.take(1)  # depths and a bypass
        if bits.take(1):
            for which in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _pass_scaling_list(bits, 16 if which < 6 else 64)
    width = bits.number() + 4
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        bits.take(1), bits.number(), bits.number()
        for _ in range(bits.number()):
            bits.number()
    bits.number()  # how many pictures others may be built on
    return _Sequence(width, bool(bits.take(1)), planes)


def _pass_scaling_list(bits: "_Bits", size: int) -> None:
    last, following = 8, 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


class _Bits:
    """Reads bits, most significant first. Raises IndexError behind the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """An unsigned number of `count` bits."""
        self._left -= count
        if self._left < 0:
            raise IndexError("behind the end")
        return self._value >> self._left & (1 << count) - 1

    def number(self) -> int:
        """An unsigned Exp-Golomb number (9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise IndexError("not a number")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """A signed one."""
        coded = self.number()
        return (coded + 1) // 2 if coded % 2 else -(coded // 2)


def _units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """The units of a packet, behind their lengths or, where those have no bytes, behind start codes; the last may be
    cut off."""
    if not length_bytes:
        for unit in data.split(START)[1:]:
            if unit:
                yield unit
        return
    at = 0
    while at + length_bytes < len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        if size:
            yield data[at : at + size]
        at += size


def _of_record(record: bytes) -> Iterator[bytes]:
    """The parameter sets of a decoder configuration record (ISO/IEC 14496-15)."""
    at = 5
    for mask in (0x1F, 0xFF):
        count = record[at] & mask if at < len(record) else 0
        at += 1
        for _ in range(count):
            size = int.from_bytes(record[at : at + 2], "big")
            if unit := record[at + 2 : at + 2 + size]:
                yield unit
            at += 2 + size


def _plain(unit: bytes) -> bytes:
    """A unit without the bytes that keep start codes out of it."""
    return unit.replace(b"\x00\x00\x03", b"\x00\x00")
