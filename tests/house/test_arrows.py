"""Imports point downhill from room to room, and each heavy library has its doors. Read from the code's imports."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "allocator_engine", "samples/yard")

FLOORS = [
    # 0 the allocator's engine, which knows nothing of what stands above it
    "allocator_engine",
    # 1 values
    "pipeline.types pipeline.rules pipeline.errors pipeline.clock pipeline.redact pipeline.urls pipeline.waiting",
    # 2 base contracts and pure decisions
    "pipeline.core pipeline.metrics pipeline.logs pipeline.sources.base pipeline.sources.address"
    " pipeline.sources.timeline pipeline.sources.pace pipeline.sources.policy pipeline.sources.settings"
    " pipeline.sources.regions"
    " pipeline.allocators.base pipeline.mllm.base pipeline.mllm.prompt"
    " pipeline.sinks.base pipeline.sinks.cloudevents pipeline.tracing.base",
    # 3 the configuration: what the edges are told
    "pipeline.config",
    # 4 edges, each with one heavy library
    "pipeline.sources pipeline.allocators pipeline.mllm pipeline.sinks pipeline.delivery pipeline.tracing",
    # 5 the main loop, the composition root, what is wanted, and what stands in for the contracts in tests
    "pipeline.loop pipeline.build pipeline.registry pipeline.testing pipeline.evidence",
    # 6 running streams, on one machine and on many, and training on the product's own parts
    "pipeline.service pipeline.fleet pipeline.lab",
    # 7 what people touch
    "pipeline.api",
    "pipeline.page",
    "pipeline.cli pipeline.lab.cli",
]
"""Rooms and single modules by floor. A module belongs to its longest entry and imports nothing of a higher floor."""

ROOT_FILES = {
    "pipeline": {
        "__init__",
        "types",
        "rules",
        "errors",
        "clock",
        "redact",
        "urls",
        "logs",
        "metrics",
        "loop",
        "build",
        "waiting",
        "testing",
    },
    "samples/yard": {"__init__", "demo", "shape", "versions"},
}
"""What stands at the root of a package because every room needs it. Anything else has a room."""

YARD_DOORS = {"pipeline.lab.yard", "pipeline.cli.yard_demo", "pipeline.cli.demo_report"}
"""The product's two doors to the demo world: the lab's, and the demo's command with its report."""

DOORS = {
    "av": {"pipeline.sources", "pipeline.mllm.png", "pipeline.mllm.packing", "samples.yard.world.codec"},
    "cv2": {"pipeline.lab.crew", "samples.yard"},
    "torch": {"pipeline.lab.cli.train", "pipeline.mllm.transformers", "allocator_engine", "samples.yard"},
    "openvino": {"pipeline.mllm.detector.networks"},
    "onnx": {"allocator_engine"},
    "onnxruntime": {"allocator_engine.runtime", "allocator_engine.compile"},
    "transformers": {
        "pipeline.mllm.transformers",
        "pipeline.mllm.vllm",
        "allocator_engine.model.pretrained",
        "samples.yard",
    },
    "tokenizers": {"pipeline.mllm.transformers", "samples.yard.train"},
    "holidays": {"pipeline.core.schedule"},
    "jinja2": {"pipeline.page", "pipeline.lab.report", "pipeline.evidence.page"},
    "kafka": {"pipeline.sinks.kafka", "pipeline.sinks.kafka_connect"},
    "httpx": {
        "pipeline.sinks.webhook",
        "pipeline.mllm.openai",
        "pipeline.sources",
        "pipeline.cli.remote",
        "pipeline.api.far",
    },
    "aiomqtt": {"pipeline.sinks.mqtt"},
    "apprise": {"pipeline.sinks.notify"},
    "defusedxml": {"pipeline.sources.onvif_xml"},
    "m3u8": {"pipeline.sources.hls"},
    "opentelemetry": {"pipeline.tracing.otel"},
    "cryptography": {"pipeline.sources.hls"},
    "ray": {"pipeline.fleet.cluster"},
    "xgrammar": {"pipeline.mllm.transformers.grammar_mask"},
    "vllm": {"pipeline.mllm.vllm.engine"},
    "sqlalchemy": {"pipeline.delivery", "pipeline.registry"},
    "alembic": {"pipeline.delivery.migrations"},
    "fastapi": {"pipeline.api", "pipeline.page"},
    "uvicorn": {"pipeline.api"},
    "argon2": {"pipeline.registry"},
    "PIL": {"pipeline.api.live", "pipeline.evidence.pictures", "pipeline.mllm.detector.networks"},
    "prometheus_client": {"pipeline.metrics", "pipeline.service", "pipeline.api.system"},
    "yaml": {"pipeline.config"},
    "typer": {"pipeline.cli", "pipeline.lab.cli"},
    "rich": {"pipeline.cli", "pipeline.lab.cli", "samples.yard.card"},
}


@cache
def modules() -> dict[str, Path]:
    files = [f for package in PACKAGES for f in (ROOT / package).rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


@cache
def imports(module: str) -> frozenset[str]:
    """Modules that `module` imports anywhere in its text, dotted and absolute."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(known[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; house imports are absolute"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in whole}
    return frozenset(found)


def within(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


def floor(module: str) -> int:
    """The floor of the longest entry that is `module` or a package around it."""
    entries = [(name, level) for level, names in enumerate(FLOORS) for name in names.split()]
    around = [(len(name), level) for name, level in entries if within(module, name)]
    assert around, f"{module} has no floor; add it to FLOORS"
    return max(around)[1]


def room(module: str) -> str:
    """The folder of a module; a module at a package's root, and a program (`__main__`), is a room of its own."""
    parts = module.split(".")
    depth = 2 if parts[0] == "samples" else 1
    if parts[-1] == "__main__" or len(parts) <= depth + 1:
        return module
    inner = (
        parts[:3] if parts[:2] in (["pipeline", "mllm"], ["pipeline", "lab"]) and len(parts) > 3 else parts[: depth + 1]
    )
    return ".".join(inner)


PRODUCT = sorted(m for m in modules() if m.split(".")[0] != "samples" and m not in ("pipeline", "allocator_engine"))


@pytest.mark.parametrize("module", PRODUCT)
def test_imports_point_downhill(module):
    uphill = {other: floor(other) for other in imports(module) & set(PRODUCT) if floor(other) > floor(module)}
    assert not uphill, f"{module} (floor {floor(module)}) imports uphill: {uphill}"


def test_rooms_import_in_no_circle():
    arrows: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        arrows[room(module)] |= {room(other) for other in imports(module) if other in modules()} - {room(module)}

    def reached(start: str) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            for other in arrows[waiting.pop()] - found:
                found.add(other)
                waiting.append(other)
        return found

    assert not {one: sorted(arrows[one]) for one in list(arrows) if one in reached(one)}


@pytest.mark.parametrize("package", ROOT_FILES)
def test_what_stands_at_the_root_is_what_every_room_needs(package):
    assert {f.stem for f in (ROOT / package).glob("*.py")} == ROOT_FILES[package]


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_heavy_library_is_imported_through_its_doors_only(module):
    for name in imports(module):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or any(within(module, door) for door in doors), f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in PRODUCT if within(m, "allocator_engine")])
def test_the_engine_knows_nothing_of_the_pipeline(module):
    assert not {name for name in imports(module) if within(name, "pipeline") or within(name, "samples")}


def test_two_doors_lead_from_the_product_to_the_yard():
    assert {m for m in PRODUCT if any(within(name, "samples") for name in imports(m))} == YARD_DOORS


def product() -> dict[str, Path]:
    return {module: path for module, path in modules().items() if not within(module, "samples")}


def readers(name: str, attribute: str) -> set[str]:
    """Modules that use `name.attribute`."""
    found = set()
    for module, path in product().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == attribute and getattr(node.value, "id", "") == name:
                found.add(module)
    return found


def test_only_the_configuration_reads_the_environment():
    """vLLM takes some of its settings no other way: one module puts them there."""
    assert readers("os", "environ") | readers("os", "getenv") == {
        "pipeline.config.values",
        "pipeline.mllm.vllm.settings",
    }


def test_only_the_clock_tells_the_time():
    calls = [readers("time", name) for name in ("time", "monotonic", "sleep", "perf_counter")]
    assert set().union(*calls, readers("datetime", "now"), readers("datetime", "utcnow")) == {"pipeline.clock"}


def test_broad_handlers_are_these_two():
    broad = [
        (module, node.lineno)
        for module, path in product().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or getattr(node.type, "id", "") == "Exception")
    ]
    assert sorted(module for module, _ in broad) == ["pipeline.service.supervisor", "pipeline.waiting"]
