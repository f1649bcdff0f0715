"""The settings of a source. A site file takes them for every stream."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from pydantic.dataclasses import dataclass

from pipeline.sources.policy import AddressPolicy
from pipeline.sources.regions import Polygon, few

MAX_PIXELS = 8192 * 4320
"""Most pixels of a picture, in px, if nothing else is said: 8K."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


Regions = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], Polygon], AfterValidator(few)
]
"""Polygons by their names."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class SourceConfig:
    """Settings of opening and reading a stream. `open_timeout_s` bounds each of FFmpeg's two steps of opening,
    `stall_s` the silence of a live stream (one that sends less often is given more), `first_picture_s` how long its
    packets may show no picture, in seconds. `hwaccel` is `auto`, `none`, a device type of FFmpeg, or `gstreamer`, see
    `hardware.device_of`. With `decode: keys` key frames alone are decoded, by the CPU: a picture comes as often as the
    camera sends one, for a tenth of the work or less. `on_corrupt` says what to do with a picture that is damaged or
    built on one that is: `drop` shows none until the next key frame that is whole. A picture of more than `max_pixels`
    px is refused. `video_track` is counted from 0, None for the one that FFmpeg finds best.

    `masks` are black in every picture before anything looks at it; they are drawn on the picture as it is shown.

    `allow_addresses` and `deny_addresses` hold for what is opened and whatever that leads to, see `sources.policy`:
    `loopback`, `private`, `link-local`, `metadata`, `public`, `file`, `any`, a network, or `file:/FOLDER`.
    """

    realtime: bool = False
    hwaccel: str = "auto"
    decode: Literal["all", "keys"] = "all"
    stall_s: Seconds = 5.0
    first_picture_s: Seconds = 30.0
    open_timeout_s: Seconds = 5.0
    ring_frames: Annotated[int, Field(ge=1, le=256)] = 8
    on_corrupt: Literal["keep", "drop"] = "drop"
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    video_track: Annotated[int, Field(ge=0)] | None = None
    masks: Regions = field(default_factory=dict)
    allow_addresses: tuple[str, ...] = ()
    deny_addresses: tuple[str, ...] = ()

    def address_policy(self) -> AddressPolicy:
        """The addresses that it may lead to. Raises ConfigError for a rule that is none."""
        return AddressPolicy.of(self.allow_addresses, self.deny_addresses)
