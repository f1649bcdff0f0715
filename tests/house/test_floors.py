"""Imports point downhill, and each heavy library has its doors. Checked from the code's own imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS = [
    # 0 values
    "pipeline.types pipeline.errors pipeline.clock pipeline.redact pipeline.lockfile pipeline.decision"
    " pipeline.backoff pipeline.waiting pipeline.lab.background pipeline.lab.digests"
    " allocator_engine.grid allocator_engine.fit allocator_engine.resize allocator_engine.spec"
    " allocator_engine.encode allocator_engine.errors allocator_engine.manifest allocator_engine.model"
    " allocator_engine.train allocator_engine.runtime allocator_engine.export allocator_engine.compile"
    " allocator_engine.check allocator_engine.operations allocator_engine.bench allocator_engine.evaluate",
    # 1 base contracts and pure decisions
    "pipeline.context pipeline.hops pipeline.budget pipeline.judge pipeline.state pipeline.metrics"
    " pipeline.sources.base pipeline.sources.address pipeline.sources.timeline pipeline.sources.pace"
    " pipeline.allocators pipeline.mllm.base pipeline.mllm.prompt pipeline.mllm.positions pipeline.mllm.patches"
    " pipeline.sinks.base pipeline.sinks.cloudevents pipeline.understanding"
    " pipeline.ladder pipeline.asking pipeline.relook pipeline.warming pipeline.outcome pipeline.stream",
    # 2 the main loop
    "pipeline.loop",
    # 3 edges
    "pipeline.sources pipeline.mllm pipeline.sinks",
    # 4 composition, configuration and storage
    "pipeline.config_faults pipeline.config pipeline.build pipeline.one_stream"
    " pipeline.database pipeline.store pipeline.outbox pipeline.relay"
    " pipeline.lab.patience pipeline.lab.natives pipeline.lab.rollout pipeline.lab.footage",
    # 5 running streams
    "pipeline.attachment pipeline.keeper pipeline.service pipeline.doctor",
    # 6 what people touch
    "pipeline.cli allocator_engine.cli pipeline.demo pipeline.play pipeline.screen pipeline.logs"
    " allocator_engine.cli_train pipeline.lab.training"
    " allocator_engine.cli_evaluate pipeline.lab.comparison pipeline.lab.crew pipeline.lab.examiner pipeline.lab.trial"
    " pipeline.lab.video_tasks"
    " pipeline.bench_mllm pipeline.bench_report",
]

DOORS = {
    "av": {"pipeline.sources"},
    "torch": {"pipeline.mllm", "allocator_engine"},
    "onnx": {"allocator_engine"},
    "onnxruntime": {"allocator_engine.runtime", "allocator_engine.compile"},
    "transformers": {"pipeline.mllm", "allocator_engine.model.pretrained"},
    "tokenizers": {"pipeline.mllm"},
    "kafka": {"pipeline.sinks.kafka"},
    "httpx": {"pipeline.sinks.webhook", "pipeline.mllm"},
    "xgrammar": {"pipeline.mllm.grammar_mask"},
    "vllm": {"pipeline.mllm.vllm_engine"},
    "sqlalchemy": {"pipeline.store", "pipeline.database"},
    "prometheus_client": {"pipeline.metrics", "pipeline.service"},
    "yaml": {"pipeline.config", "pipeline.config_faults"},
    "typer": {
        *("pipeline.cli", "allocator_engine.cli", "allocator_engine.cli_train", "allocator_engine.cli_evaluate"),
    },
    "rich": {
        *("pipeline.cli", "allocator_engine.cli", "allocator_engine.cli_train", "allocator_engine.cli_evaluate"),
        *("pipeline.bench_report", "pipeline.demo", "pipeline.screen"),
    },
}


def modules() -> dict[str, Path]:
    files = [f for package in ("pipeline", "allocator_engine") for f in (ROOT / package).rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports(module: str) -> set[str]:
    """Modules that `module` imports anywhere in its text, dotted and absolute."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(known[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; house imports are absolute"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in whole}
    return found


def floor(module: str) -> int:
    """The floor of the longest entry that is `module` or a package around it."""
    entries = [(name, level) for level, names in enumerate(FLOORS) for name in names.split()]
    around = [(len(name), level) for name, level in entries if f"{module}.".startswith(f"{name}.")]
    assert around, f"{module} has no floor; add it to FLOORS"
    return max(around)[1]


PLACED = sorted(m for m in modules() if m not in ("pipeline", "allocator_engine"))


@pytest.mark.parametrize("module", PLACED)
def test_imports_point_downhill(module):
    uphill = {other: floor(other) for other in imports(module) & set(PLACED) if floor(other) > floor(module)}
    assert not uphill, f"{module} (floor {floor(module)}) imports uphill: {uphill}"


@pytest.mark.parametrize("module", PLACED)
def test_a_heavy_library_is_imported_through_its_doors_only(module):
    for name in imports(module):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or any(f"{module}.".startswith(f"{door}.") for door in doors), f"{module} imports {name}"


@pytest.mark.parametrize(
    "module", [m for m in PLACED if m.startswith("allocator_engine") and not m.startswith("allocator_engine.cli")]
)
def test_the_engine_knows_nothing_of_the_pipeline(module):
    assert not {name for name in imports(module) if name.split(".")[0] == "pipeline"}


def readers(name: str, attribute: str) -> set[str]:
    """Modules that use `name.attribute`."""
    found = set()
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == attribute and getattr(node.value, "id", "") == name:
                found.add(module)
    return found


def test_only_the_configuration_reads_the_environment():
    """vLLM takes some of its settings no other way: one module puts them there."""
    assert readers("os", "environ") | readers("os", "getenv") == {"pipeline.config", "pipeline.mllm.vllm_settings"}


def test_only_the_clock_tells_the_time():
    calls = [readers("time", name) for name in ("time", "monotonic", "sleep", "perf_counter")]
    assert set().union(*calls, readers("datetime", "now"), readers("datetime", "utcnow")) == {"pipeline.clock"}


def test_there_is_one_broad_handler():
    broad = [
        (module, node.lineno)
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or getattr(node.type, "id", "") == "Exception")
    ]
    assert [module for module, _ in broad] == ["pipeline.keeper"]
