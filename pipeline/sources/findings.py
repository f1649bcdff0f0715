"""Findings of a source about its stream that people should know, each reported once. Pure."""

from collections.abc import Iterator

from pipeline.sources.base import Notice
from pipeline.sources.shape import MAX_RATIO, ratio
from pipeline.sources.soundness import LONG_S, LongDamage, Verdict

DAMAGED, MENDED = "stream.damaged", "stream.mended"
RESTAMPED = "stream.restamped"
MISSHAPEN = "stream.misshapen"


class Findings:
    """The findings reported for one stream. Long damage is reported each time it begins and ends, the rest once."""

    def __init__(self, scheme: str, rtsp_transport: str) -> None:
        self._by_udp = scheme == "rtsp" and rtsp_transport.startswith("udp")
        self._damage = LongDamage()
        self._told: set[str] = set()

    def connect(self) -> None:
        """A connection begins; damage is counted anew where none was told of."""
        self._damage.connect()

    def picture(self, pts_s: float, verdict: Verdict, lie: str | None) -> Iterator[Notice]:
        """A decoded picture at its stream time; `lie` is what its time stamps do, if they are not believed."""
        changed = None if verdict == "joining" else self._damage.push(pts_s, verdict == "damaged")
        if changed is not None:
            yield self._damaged() if changed else self._mended()
        if lie is not None and self._first(RESTAMPED):
            yield Notice(
                RESTAMPED,
                f"its time stamps {lie}; pictures are placed by arrival, those of a recording by its frame rate",
                "look for newer firmware, set the camera's clock by NTP, or start the camera anew",
            )

    def shown(self, height: int, width: int) -> Iterator[Notice]:
        """A picture that is shown, by its native size in px."""
        if ratio(height, width) > MAX_RATIO and self._first(MISSHAPEN):
            yield Notice(
                MISSHAPEN,
                f"its pictures are {width}x{height} px, a ratio of more than {MAX_RATIO}: many models refuse that",
                "look at what the camera or the file states as its picture and pixel sizes",
            )

    def _damaged(self) -> Notice:
        share = self._damage.share
        reason = f"{share:.0%} of its pictures in {LONG_S:g} s were damaged on the way, or built on one that was"
        if self._by_udp:
            advice = "packets are lost: set rtsp_transport to tcp"
        else:
            advice = "look for what loses data on the way; a lower bit rate and shorter key frame intervals help"
        return Notice(DAMAGED, reason, advice, {"share": round(share, 3)})

    def _mended(self) -> Notice:
        return Notice(MENDED, "its pictures are whole again", data={"share": round(self._damage.share, 3)})

    def _first(self, kind: str) -> bool:
        first = kind not in self._told
        self._told.add(kind)
        return first
