"""How tests are spread over the processes of pytest-xdist."""

from collections.abc import Mapping

from xdist.scheduler import LoadFileScheduling

SERVICES: Mapping[str, tuple[str, ...]] = {
    "kafka": ("flow/test_sink_contract", "live/test_kafka", "live/test_kafka_connect", "live/test_camera_to_kafka"),
    "postgresql": (
        *("unit/test_store", "unit/test_store_owner", "unit/test_migrations", "unit/test_registry"),
        *("unit/test_search", "unit/test_fencing", "flow/test_fleet"),
    ),
}
"""Files whose tests share a service, which some of them stop or empty. Those of one service run in one process."""

_SERVICE_OF = {f"tests/{file}.py": service for service, files in SERVICES.items() for file in files}


class OneServiceEach(LoadFileScheduling):
    """A file's tests run in one process, and so do those of files that share a service."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _SERVICE_OF.get(file, file)
