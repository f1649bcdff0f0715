"""The service looks after itself: what is wrong with it for long becomes an event, as does its sign of life."""

import asyncio
import uuid
from collections.abc import Callable, Mapping

import structlog

from pipeline.clock import Clock
from pipeline.core.outcome import Decision
from pipeline.core.vitals import SERVICE, ServiceRules, Vitals, VitalsState, judge_vitals
from pipeline.delivery.relay import SinkCounts
from pipeline.delivery.store import Store
from pipeline.loop import Committer
from pipeline.metrics import Metrics
from pipeline.redact import scrub
from pipeline.service.supervisor import StreamSupervisor

log = structlog.get_logger()

TICK_S = 1.0
"""How often a service looks at itself."""


class VitalSigns:
    """Judges what `look` returns, by the rules that it returns too. `on` are the alarms that are on now."""

    def __init__(
        self,
        look: Callable[[], tuple[Vitals, ServiceRules]],
        store: Store,
        outbox: Committer,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.on: tuple[str, ...] = ()
        self._look = look
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Until cancelled. What is found out is durable before the next look; evidence that has not led to anything yet
        is not, and gathers anew after a restart."""
        await asyncio.to_thread(self._store.take, SERVICE)
        stored = await asyncio.to_thread(self._store.load, SERVICE)
        state = VitalsState.from_json(stored.state) if stored else VitalsState(lineage=uuid.uuid4().hex)
        before_s = stored.resume_s if stored else 0.0
        began_s = seen_s = self._clock.monotonic_s()
        while True:
            self.on = state.on
            self._metrics.service_alarms.set(len(state.on))
            await self._clock.sleep(TICK_S)
            now_s = self._clock.monotonic_s()
            at_s, seconds, seen_s = before_s + now_s - began_s, now_s - seen_s, now_s
            state, findings = judge_vitals(state, *self._look(), at_s, seconds)
            events = []
            for finding in findings:
                state, event = state.event(finding, self._clock.now())
                events.append(event)
            if not events:
                continue
            await self._outbox.commit(Decision(SERVICE, state.to_json(), tuple(events), at_s))
            for event in events:
                self._metrics.event(event)
                if event.type != "service.heartbeat":
                    log.warning(event.type, **event.data)


def vitals_of(streams: Mapping[str, StreamSupervisor], sinks: Mapping[str, SinkCounts]) -> Vitals:
    """The vitals of a service at this moment."""
    attached = {slug: one.attachment for slug, one in streams.items() if one.attachment and not one.failed}
    return Vitals(
        steps={slug: one.run.ladder.step for slug, one in attached.items()},
        up=sum(one.phase == "up" for one in attached.values()),
        sinks={name: scrub(one.last_error) if one.last_error else None for name, one in sinks.items()},
        pending={name: one.pending for name, one in sinks.items()},
    )
