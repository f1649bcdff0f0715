"""How tests are spread over the processes of pytest-xdist."""

from collections.abc import Mapping

from xdist.scheduler import LoadFileScheduling

SERVICES: Mapping[str, tuple[str, ...]] = {
    "kafka": ("flow/test_sink_contract", "live/test_kafka", "live/test_kafka_connect", "live/test_camera_to_kafka"),
    "postgresql": (
        *("unit/test_store", "unit/test_store_owner", "unit/test_migrations", "unit/test_registry"),
        *("unit/test_search", "unit/test_fencing", "unit/test_tested", "flow/test_fleet", "live/test_fleet_kafka"),
    ),
    "vllm": ("live/test_vllm", "live/test_yard_vllm", "live/test_openai_vllm"),
}
"""Files whose tests share a service, which some of them stop or empty, or which takes all cores. Those of one service
run in one process."""

SLOW = (
    *SERVICES["vllm"],
    *("live/test_fleet_ray", "flow/test_fleet", "live/test_page", "live/test_camera_to_kafka", "live/test_kafka"),
    *("flow/test_cli", "flow/test_cli_ending", "flow/test_adapt", "flow/test_engine_in_service", "unit/test_capo"),
)
"""Files that take longest: they begin first, so that no process is left with one of them at the end."""

_SERVICE_OF = {f"tests/{file}.py": service for service, files in SERVICES.items() for file in files}


def slow_first(path: str) -> int:
    """The place of a file of tests, by its path below the root, in the order in which files begin."""
    name = path.removeprefix("tests/").removesuffix(".py")
    return SLOW.index(name) if name in SLOW else len(SLOW)


class OneServiceEach(LoadFileScheduling):
    """A file's tests run in one process, and so do those of files that share a service."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _SERVICE_OF.get(file, file)
