"""Parts that all streams share and that can be exchanged while they run: sinks, allocator, metrics port, the GPU's
budget."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.build import build_sink
from pipeline.clock import Clock
from pipeline.config.messages import MqttConfig
from pipeline.config.sinks import SinkConfig
from pipeline.config.site import MetricsConfig, SiteConfig
from pipeline.core.gate import GateRules
from pipeline.metrics import Metrics
from pipeline.service.health import Health
from pipeline.service.port import Port
from pipeline.sinks.base import Announcing, PictureOf, Sink
from pipeline.types import Event

RESTARTING = ("mllm", "store", "evidence", "fleet", "tracing")
"""Parts of a site that cannot change under running streams: that needs a restart of the process."""
_ALLOCATOR = ("engine", "defaults.allocator")
EXCHANGED = ("sinks", "metrics", "gpu_budget", *_ALLOCATOR)
"""Parts that all streams share and that change without touching one."""


def part_of(site: SiteConfig, name: str) -> object:
    """The part of a site that a dotted name leads to."""
    found: object = site
    for key in name.split("."):
        found = getattr(found, key)
    return found


def changed_parts(before: SiteConfig, after: SiteConfig, names: Sequence[str]) -> list[str]:
    """Those of the named parts that differ."""
    return [name for name in names if part_of(before, name) != part_of(after, name)]


def needs_allocator(before: SiteConfig, after: SiteConfig) -> bool:
    """True if the allocator has to be made anew."""
    return bool(changed_parts(before, after, _ALLOCATOR))


class SinkSet:
    """The sinks of a site, by slug; `extra` ones are no site's and stay. `picture_of` may be set at any time: where the
    pictures of events lie that messages to people have with them. What is built passes through `traced`."""

    def __init__(self, clock: Clock, extra: Sequence[Sink]) -> None:
        self.extra = tuple(extra)
        self.picture_of: PictureOf = lambda event: None
        self.traced: Callable[[Sink], Sink] = lambda sink: sink
        self._clock = clock
        self._built: dict[str, tuple[SinkConfig, Sink]] = {}

    def build(self, sinks: Mapping[str, SinkConfig]) -> list[Sink]:
        """Sinks as they are configured; those that are as before are the same objects. Raises ConfigError."""
        built = {slug: (config, self._sink(slug, config)) for slug, config in sinks.items()}
        self._built = built
        return [sink for _, sink in built.values()] + list(self.extra)

    def announcing(self) -> list[tuple[str, Announcing]]:
        """Those that keep a state for each watch, by name."""
        return [
            (name, sink)
            for name, (config, sink) in self._built.items()
            if isinstance(config, MqttConfig) and config.states and isinstance(sink, Announcing)
        ]

    def rules(self, name: str) -> GateRules:
        """The filter and the rate limit of a sink; a sink that belongs to no site gets all events."""
        config, _ = self._built.get(name, (None, None))
        return config.gate_rules() if config else GateRules()

    def _sink(self, slug: str, config: SinkConfig) -> Sink:
        before, sink = self._built.get(slug, (None, None))
        if sink and before == config:
            return sink
        return self.traced(build_sink(slug, config, self._clock, self._picture))

    def _picture(self, event: Event) -> Path | None:
        return self.picture_of(event)


class MetricsPort:
    """The port on which Prometheus finds the metrics; moved without a gap."""

    def __init__(self, metrics: Metrics, health: Callable[[], Health]) -> None:
        self._metrics = metrics
        self._health = health
        self._port: Port | None = None

    def move(self, address: MetricsConfig) -> Callable[[], None]:
        """Serve at an address, at none if its port is 0; the call it returns closes the place before.

        Raises ConfigError where that cannot be had; then nothing changes.
        """
        before, self._port = self._port, self._open(address) if address.port else None
        return before.close if before else lambda: None

    def close(self) -> None:
        """Stop serving."""
        if self._port:
            self._port.close()
        self._port = None

    def _open(self, address: MetricsConfig) -> Port:
        return Port(address, self._metrics.registry, self._health).open()
