"""The part of a site file about a fleet of nodes."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.config.values import STRICT, Positive


@dataclass(frozen=True, slots=True, config=STRICT)
class FleetConfig:
    """The terms of `serve --cluster`: a node that has given no sign of life for `lease_s` seconds, by the database's
    clock, counts as dead, and its streams go elsewhere; one whose own clock is more than `most_skew_s` seconds off gets
    no streams, for its events would have wrong times. A node offers pictures of its streams to the head on
    `pictures_port` of its address in the cluster (None: on any free port; 0: not at all)."""

    lease_s: Annotated[float, Field(ge=1, le=600)] = 2.0
    most_skew_s: Positive = 10.0
    pictures_port: Annotated[int, Field(ge=0, le=65535)] | None = None
