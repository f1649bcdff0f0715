"""The filter and the rate limit of a sink of any kind."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from pydantic.dataclasses import dataclass

from pipeline.config.values import STRICT, Selector, Slug
from pipeline.core.gate import GateRules, RateLimit, SinkFilter

EventPattern = Annotated[str, StringConstraints(pattern=r"^[a-z_*]+(\.[a-z_*]+)?$", max_length=64)]
Severity = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


@dataclass(frozen=True, slots=True, config=STRICT)
class FilterConfig:
    """The events that are for a sink: what is empty does not matter, all the rest has to hold.

    `types` are event types or patterns such as `watch.*`; `streams` slugs or `tag:TAG`; `watches` slugs.
    """

    types: tuple[EventPattern, ...] = ()
    severities: tuple[Severity, ...] = ()
    streams: tuple[Selector, ...] = ()
    watches: tuple[Slug, ...] = ()

    def rules(self) -> SinkFilter:
        """As what judges events takes it."""
        return SinkFilter(self.types, frozenset(self.severities), frozenset(self.streams), frozenset(self.watches))


@dataclass(frozen=True, slots=True, config=STRICT)
class RateLimitConfig:
    """Over any minute or hour at most so many events go to a sink; one event at its end says what was held back."""

    events: Annotated[int, Field(ge=1, le=1000)] = field(kw_only=True)
    per: Literal["minute", "hour"] = "hour"

    def rules(self) -> RateLimit:
        """As what judges events takes it."""
        return RateLimit(self.events, 60.0 if self.per == "minute" else 3600.0)


@dataclass(frozen=True, slots=True, config=STRICT)
class SinkPolicy:
    """The filter and the rate limit of a sink of any kind."""

    filter: FilterConfig = field(default_factory=FilterConfig, kw_only=True)
    rate_limit: RateLimitConfig | None = field(default=None, kw_only=True)

    def gate_rules(self) -> GateRules:
        """As what judges events takes it."""
        return GateRules(self.filter.rules(), self.rate_limit.rules() if self.rate_limit else None)
