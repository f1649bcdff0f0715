"""The material of a training: clips, answers and buckets, and notes of what its outcome depends on."""

from collections.abc import Mapping
from dataclasses import dataclass

from allocator_engine.train.capo import Outside
from pipeline.core.budget import Bucket, Rate


@dataclass(frozen=True, slots=True)
class Material:
    """The material of a training; `notes` name what was learned from, `remarks` are for people. `slots` things are
    known of every cell of its episodes."""

    outside: Outside
    notes: Mapping[str, str]
    remarks: tuple[str, ...] = ()
    slots: int = 0


def bucket(rate: float, burst: int) -> Bucket:
    """The product's bucket, empty at 0 s."""
    return Bucket(Rate(rate, burst), 0.0, full=False)
