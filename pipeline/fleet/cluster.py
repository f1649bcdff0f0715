"""A Ray cluster, on whose machines nodes are run: one actor each. The only importer of Ray.

Ray starts nodes where they are wanted, and says which machines there are. It does not judge: which node is dead, and
who may decide on a stream, is in the store.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ray
import structlog
from pydantic import TypeAdapter
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError, ResadaptError
from pipeline.fleet.head import ShardLost, ShardRefused
from pipeline.fleet.shard import OfferPictures, Shard
from pipeline.fleet.terms import Machine, ShardTerms, version
from pipeline.logs import set_up_logs
from pipeline.redact import scrub
from pipeline.service.memory import keep_steady

log = structlog.get_logger()

NAMESPACE = "resadapt"
STREAMS = "streams"
"""The resource by which a machine of the cluster bounds the number of its streams."""
TAG = "true"
"""A label of a machine with this value is a tag."""

_TERMS = TypeAdapter(ShardTerms)


class _Method(Protocol):
    def remote(self, *arguments: object) -> Any: ...  # noqa: ANN401 - awaitable, by Ray


class _Actor(Protocol):
    """An actor as its callers see it."""

    run: _Method
    reload: _Method
    end: _Method


class ShardActor:
    """The process of a node. Its methods take and return plain values: the program on the other machine may be another
    version. `offer` is the Shard's."""

    def __init__(self, offer: OfferPictures) -> None:
        set_up_logs("info", people=False)
        self._offer = offer
        self._shard: Shard | None = None

    async def run(self, terms: Mapping[str, object]) -> tuple[str, str, str]:
        """Run a node, or wait for the end of the one that runs: how it ended (ended, refused, lost), why, and the
        version of the program here."""
        try:
            read = _TERMS.validate_python(terms)
            if self._shard is None:
                keep_steady(parse_site(read.raw).mllm)
                self._shard = Shard(read, SystemClock(), self._offer)
                why = await self._shard.run()
            else:
                await self._shard.reload(read)
                why = await self._shard.ended()
            return "ended", why, version()
        except (ConfigError, ValueError) as error:
            return "refused", scrub(str(error)), version()
        except ResadaptError as error:
            return "lost", scrub(str(error)), version()

    async def reload(self, terms: Mapping[str, object]) -> tuple[str, str]:
        """Take over what a site file says now."""
        try:
            if self._shard:
                await self._shard.reload(_TERMS.validate_python(terms))
        except (ResadaptError, ValueError) as error:
            return "refused", scrub(str(error))
        return "ended", ""

    async def end(self) -> None:
        """Hand over all streams."""
        if self._shard:
            await self._shard.end()


class RayCluster:
    """The Ray cluster at an address, `auto` for that of this machine; where there is none, one is started that ends
    with this process (`is_own`). `offer` is by what its nodes offer pictures; they import it. Raises ConfigError where
    it cannot be reached."""

    def __init__(self, address: str, offer: OfferPictures) -> None:
        if address.startswith("ray://"):
            raise ConfigError(
                f"--cluster is {address!r}, Ray's client; expected auto, or HOST:PORT of a cluster that this machine is"
                " part of (ray start --address=HOST:PORT)"
            )
        quiet: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "warning"}
        self.is_own = False
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            if address != "auto":
                raise _unreachable(address, error) from error
            ray.init(include_dashboard=False, **quiet)
            self.is_own = True
        except (RayError, RuntimeError, ValueError, OSError) as error:
            raise _unreachable(address, error) from error
        self._ids: dict[str, str] = {}
        self._offer = offer

    def machines(self) -> Sequence[Machine]:
        try:
            found = [_machine(node) for node in ray.nodes() if node["Alive"]]
        except (RayError, ConnectionError, TimeoutError) as error:
            raise ShardLost(f"Ray does not answer: {error}") from error
        self._ids = {machine.name: node_id for machine, node_id in found}
        return [machine for machine, _ in found if machine.capacity > 0]

    async def run(self, terms: ShardTerms) -> str:
        name = terms.machine.name
        how, why, its_version = await _answer(self._actor(name).run.remote(_TERMS.dump_python(terms)))
        self._kill(name)
        if how == "refused":
            raise ShardRefused(why, its_version)
        if how == "lost":
            raise ShardLost(why)
        return str(why)

    async def reload(self, terms: ShardTerms) -> None:
        how, why = await _answer(self._actor(terms.machine.name).reload.remote(_TERMS.dump_python(terms)))
        if how == "refused":
            raise ShardRefused(f"the node {terms.machine.name} does not take the site file over: {why}", "")

    async def end(self, machine: str) -> None:
        await _answer(self._actor(machine).end.remote())

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        ray.shutdown()

    def _actor(self, name: str) -> _Actor:
        if name not in self._ids:
            raise ShardLost(f"there is no machine {name}")
        there = NodeAffinitySchedulingStrategy(self._ids[name], soft=False)
        options = ray.remote(ShardActor).options(
            name=f"node {name}",
            namespace=NAMESPACE,
            lifetime="detached",  # it goes on without the head
            get_if_exists=True,
            num_cpus=0,
            max_restarts=0,
            max_concurrency=100,
            scheduling_strategy=there,
        )
        try:
            actor: _Actor = options.remote(self._offer)
        except (RayError, ValueError) as error:
            raise ShardLost(f"the node {name} cannot be started: {error}") from error
        return actor

    def _kill(self, name: str) -> None:
        """End the process of a node that has ended, so that the next one begins in a fresh one."""
        try:
            ray.kill(ray.get_actor(f"node {name}", namespace=NAMESPACE))
        except (RayError, ValueError) as error:
            log.debug("actor_gone", node=name, reason=str(error))


async def _answer(reference: Any) -> Any:  # noqa: ANN401 - Ray's references and what they lead to
    try:
        return await reference
    except RayError as error:
        raise ShardLost(
            scrub(str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__)
        ) from error


def _machine(node: Mapping[str, Any]) -> tuple[Machine, str]:
    resources, labels = node["Resources"], node.get("Labels") or {}
    most = resources.get(STREAMS)
    tags = frozenset(key for key, value in labels.items() if value == TAG and "/" not in key)
    name = str(node["NodeName"] or node["NodeManagerAddress"])
    capacity, address = float(resources.get("CPU", 0.0)), str(node["NodeManagerAddress"])
    machine = Machine(name, capacity, None if most is None else int(most), tags, address)
    return machine, str(node["NodeID"])


def _unreachable(address: str, error: Exception) -> ConfigError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConfigError(
        f"--cluster {address}: there is no Ray cluster, or this machine is not part of it: {reason}; start one with"
        " `ray start --head` here, or `ray start --address=HOST:PORT`, and give RAY_AUTH_MODE alike to both"
    )
