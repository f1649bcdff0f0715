"""When a picture was taken: UTC, and where that comes from."""

import struct
from collections import deque
from datetime import UTC, datetime, timedelta

from pipeline.clock import Clock
from pipeline.sources.address import Address
from pipeline.sources.av_decoder import VideoPacket
from pipeline.sources.connection import Connection
from pipeline.types import ClockQuality

CLOCK_TRUST_S = 60.0
"""A camera's own clock that differs more than this from ours was never set; arrival is used instead."""

PLAYLIST_TRUST_S = 3600.0
"""So far back, in seconds, a live playlist may reach; its dates are those of a clock that was never set beyond."""


class Labels:
    """UTC of capture: from RTCP sender reports where a camera sends them, else from arrival, else from the file."""

    def __init__(self, connection: Connection, address: Address, clock: Clock, *, arrival: bool) -> None:
        self._clock = clock
        self._tick_s = connection.tick_s
        path = address.path if address.scheme == "file" else None
        self._start = None if arrival else connection.started_at(path, clock.now())
        self._camera_start: datetime | None = None
        self._dates = connection.dates
        self._live = connection.live
        self._segments: deque[tuple[int, float, datetime]] = deque(maxlen=2)

    def learn(self, packet: VideoPacket) -> None:
        """Take the wall clock that FFmpeg derived from the camera's sender reports (RFC 3550, 6.4.1), if it is sane."""
        if packet.pts is None:
            return
        if self._dates is not None:
            self._learn_segment(packet.pos, packet.pts * self._tick_s)
        if not packet.has_sidedata("prft"):
            return
        (micros,) = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))
        sent = datetime.fromtimestamp(micros / 1e6, UTC)
        sane = abs((sent - self._clock.now()).total_seconds()) <= CLOCK_TRUST_S
        self._camera_start = sent - timedelta(seconds=packet.pts * self._tick_s) if sane else None

    def of(self, pts_s: float, media_s: float | None) -> tuple[datetime, ClockQuality]:
        """UTC of the frame at stream time `pts_s` and media time `media_s`, in seconds, and where it comes from."""
        if self._segments and media_s is not None:
            # The decoder may still give pictures of the segment before.
            _, first_s, date = self._segments[-1] if media_s >= self._segments[-1][1] else self._segments[0]
            return date + timedelta(seconds=media_s - first_s), "ntp" if self._live else "file"
        if self._start is not None:
            return self._start + timedelta(seconds=pts_s), "file"
        if self._camera_start is not None and media_s is not None:
            return self._camera_start + timedelta(seconds=media_s), "ntp"
        return self._clock.now(), "arrival"

    def _learn_segment(self, position: int | None, media_s: float) -> None:
        """Take the date that a playlist states for the segment whose first packet this is, if it is sane."""
        found = self._dates.at(position) if self._dates is not None else None
        if found is None or (self._segments and self._segments[-1][0] == found[0]):
            return
        ahead_s = (found[1] - self._clock.now()).total_seconds()
        if ahead_s <= CLOCK_TRUST_S and (not self._live or ahead_s >= -PLAYLIST_TRUST_S):
            self._segments.append((found[0], media_s, found[1]))
        else:
            self._segments.clear()
