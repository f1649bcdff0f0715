"""What a training works with: clips, answers and buckets, and what its outcome hangs on."""

from collections.abc import Mapping
from dataclasses import dataclass

from allocator_engine.train.capo import Outside
from pipeline.core.budget import Bucket, Rate


@dataclass(frozen=True, slots=True)
class Material:
    """What a training works with; `notes` say what was learned from, `remarks` are for people. Of every cell of its
    episodes `slots` things are known."""

    outside: Outside
    notes: Mapping[str, str]
    remarks: tuple[str, ...] = ()
    slots: int = 0


def bucket(rate: float, burst: int) -> Bucket:
    """The product's bucket, empty at 0 s."""
    return Bucket(Rate(rate, burst), 0.0, full=False)
