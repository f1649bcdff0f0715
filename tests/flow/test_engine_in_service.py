"""The engine in the product: chosen, loaded once for all streams, replaced by one fixed scale where it fails."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.torch import save_file
from structlog.testing import capture_logs

from allocator_engine.digests import sha256_of
from allocator_engine.manifest import artifact_of, read, write
from pipeline import build
from pipeline.build import allocator_name
from pipeline.cli.yard_demo import Demo, _described
from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError, EngineMismatch
from pipeline.service.doctor import examine
from pipeline.service.service import Service
from pipeline.testing import MemorySink
from tests.checkpoints import untrained_yard
from tests.engines import engine

SCENE = "synthetic:?seconds=12&width=160&height=96&fps=4"


@pytest.fixture
def own(tmp_path):
    """An engine that a test may break."""
    return shutil.copytree(engine(), tmp_path / "own")


def site_of(folder, path, streams=1, **more):
    raw = {
        "defaults": {"allocator": "learned", "budget": {"rate_tokens_per_s": 6, "burst_tokens": 20}},
        "streams": {f"camera-{i}": {"url": f"{SCENE}&seed={i}"} for i in range(streams)},
        "watches": {"car": {"question": "is there a car?"}, "dog": {"question": "is there a dog?"}},
        "mllm": "null",
        "engine": str(path),
        "sinks": {},
        "store": f"sqlite:///{folder / 'service.db'}",
    }
    return parse_site(raw | more)


async def played(site):
    """The events of a site's streams, the counts of each, and the value of a metric of that name, at their end."""
    sink = MemorySink("memory")
    async with Service(site, SystemClock(), [sink], insist=False) as service:
        await service.finished()
        counts = [attachment.run.counts for attachment in service.attachments.values()]
        metrics = {one.name: one.value for family in service.metrics.registry.collect() for one in family.samples}
    return sink.events, counts, metrics


def poison(folder: Path) -> None:
    """Make every answer of the engine's ONNX file NaN, with a manifest that vouches for it."""
    model = onnx.load(folder / "engine.onnx")
    weights = next(one for one in model.graph.initializer if one.name.endswith("place"))
    broken = np.full_like(numpy_helper.to_array(weights), np.nan)
    weights.CopyFrom(numpy_helper.from_array(broken, weights.name))
    onnx.save(model, folder / "engine.onnx")
    write(replace(read(folder), onnx=artifact_of(folder / "engine.onnx")), folder / "engine.json")


async def test_one_engine_allocates_for_all_streams_within_their_budgets(tmp_path):
    events, counts, metrics = await played(site_of(tmp_path, engine(), streams=3))
    attached = [event.data["allocator"] for event in events if event.type == "stream.attached"]
    assert attached == ["learned"] * 3
    opened = [event for event in events if event.type == "watch.opened"]
    assert len(opened) >= 6
    assert {(event.data["allocator"], event.data["allocation_fell_back"]) for event in opened} == {("learned", False)}
    assert [0 < one.spent <= 20 + 6 * 12 for one in counts] == [True] * 3
    assert metrics["resadapt_engine_hops_sum"] == metrics["resadapt_allocation_seconds_count"] > 3
    assert metrics["resadapt_engine_hops_count"] == metrics["resadapt_engine_seconds_count"] > 0


async def test_weights_that_are_not_finite_leave_fixed_scale_marked_counted_and_in_the_budget(tmp_path, own):
    poison(own)
    site = site_of(tmp_path, own, engine={"path": str(own), "backend": "onnxruntime"})
    events, (counts,), metrics = await played(site)
    opened = [event for event in events if event.type == "watch.opened"]
    assert opened
    assert all(event.data["allocation_fell_back"] is True for event in opened)
    assert counts.fallbacks == metrics["resadapt_allocation_fallbacks_total"] > 3
    assert 0 < counts.spent <= 20 + 6 * 12
    assert metrics["resadapt_engine_hops_count"] == 0


def another_spec(folder: Path) -> None:
    manifest = read(folder)
    write(replace(manifest, spec=replace(manifest.spec, scale_range=(0.2, 1.8))), folder / "engine.json")


def another_onnx(folder: Path) -> None:
    (folder / "engine.onnx").write_bytes(b"not the one that was proved")


def nan_checkpoint(folder: Path) -> None:
    file = folder / "allocator.safetensors"
    with safe_open(file, framework="pt") as kept:
        tensors, about = {name: kept.get_tensor(name) for name in kept.keys()}, kept.metadata()  # noqa: SIM118
    tensors["network.place"][0, 0] = float("nan")
    save_file(tensors, file, metadata=about)
    write(replace(read(folder), checkpoint=artifact_of(file)), folder / "engine.json")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (another_spec, r"another spec: its scale_range is .* resadapt-allocator export .*allocator\.safetensors"),
        (another_onnx, r"engine\.onnx has SHA-256 .* resadapt-allocator export .*allocator\.safetensors"),
    ],
)
async def test_an_engine_that_does_not_fit_refuses_to_start_and_the_doctor_says_why(tmp_path, own, spoil, said):
    spoil(own)
    site = site_of(tmp_path, own)
    with pytest.raises(EngineMismatch, match=said):
        await played(site)
    (finding,) = [one for one in await examine(site, SystemClock()) if one.what == "allocator"]
    assert not finding.healthy


async def test_weights_that_are_not_finite_refuse_to_start_where_they_are_computed(tmp_path, own):
    nan_checkpoint(own)
    site = site_of(tmp_path, own, engine={"path": str(own), "backend": "torch"})
    with pytest.raises(EngineMismatch, match=r"network\.place in .* not finite"):
        await played(site)


async def test_a_backend_that_cannot_run_here_refuses_to_start(tmp_path):
    site = site_of(tmp_path, engine(), engine={"path": str(engine()), "backend": "tensorrt"})
    with pytest.raises(EngineMismatch, match="has no TensorRT plan; add one with: resadapt-allocator compile"):
        await played(site)


async def test_an_engine_changes_under_the_streams_unless_it_does_not_fit(tmp_path, own):
    async with Service(site_of(tmp_path, engine(), streams=0), SystemClock()) as service:
        await service.reconcile(site_of(tmp_path, own, streams=0))
        another_onnx(own)
        with pytest.raises(EngineMismatch, match="SHA-256"):
            await service.reconcile(
                site_of(tmp_path, own, streams=0, engine={"path": str(own), "backend": "onnxruntime"})
            )
        assert service.allocator == "learned"


async def test_the_doctor_names_backend_parity_and_versions(tmp_path):
    said = {one.what: one for one in await examine(site_of(tmp_path, engine()), SystemClock())}["allocator"]
    assert said.healthy
    assert said.detail.startswith("learned, by onnxruntime within ")
    assert "of the network on 6 golden hops; made with the versions here; not known to be trained for" in said.detail
    reference = site_of(tmp_path, engine(), engine={"path": str(engine()), "backend": "torch"})
    said = {one.what: one for one in await examine(reference, SystemClock())}["allocator"]
    assert said.detail.startswith("learned, by torch is the network itself; made with")
    plain = site_of(tmp_path, engine(), defaults={"allocator": "motion"})
    assert {one.what: one.detail for one in await examine(plain, SystemClock())}["allocator"] == "motion"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A shipped engine, trained for a shipped yard MLLM."""
    folder = shutil.copytree(engine(), tmp_path / "shipped")
    monkeypatch.setattr(build, "SHIPPED", folder)
    monkeypatch.setattr(build, "YARD", untrained_yard())
    weights = sha256_of(untrained_yard() / "model.safetensors")
    write(replace(read(folder), trained_on={"mllm": weights[:12]}), folder / "engine.json")
    return folder


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({}, "learned"),
        ({"mllm": "yard"}, "learned"),
        ({"mllm": "null"}, "motion"),
        ({"mllm": "transformers:/models/another"}, "motion"),
        ({"mllm": "null", "engine": "/somewhere"}, "learned"),
        ({"defaults": {"allocator": "fixed"}}, "fixed"),
        ({"defaults": {"allocator": "fixed"}, "engine": "/somewhere"}, "fixed"),
    ],
)
def test_the_engine_that_comes_along_is_the_default_for_the_mllm_it_was_trained_for(shipped, raw, name):
    assert allocator_name(parse_site(raw)) == name


def test_the_demo_takes_the_engine_that_fits_its_mllm_and_else_one_scale(shipped, tmp_path):
    chosen = [
        parse_site(_described(demo, (), (), tmp_path)).defaults.allocator
        for demo in (Demo(), Demo(mllm="null"), Demo(mllm="null", engine=str(shipped)), Demo(allocator="motion"))
    ]
    assert chosen == ["learned", "fixed", "learned", "motion"]


@pytest.mark.parametrize("note", [{}, {"mllm": ""}, {"mllm": "0" * 64}])
def test_an_engine_that_was_not_trained_for_these_weights_is_no_default(shipped, note):
    write(replace(read(shipped), trained_on=note), shipped / "engine.json")
    assert allocator_name(parse_site({})) == "motion"


@pytest.mark.parametrize(("use", "known"), [("transformers:/models/a", True), ("transformers:/models/b", False)])
def test_an_engine_of_another_mllm_is_used_with_a_warning(shipped, use, known):
    write(replace(read(shipped), trained_on={"mllm_name": "transformers:/models/a"}), shipped / "engine.json")
    site = parse_site({"mllm": use, "engine": str(shipped)})
    with capture_logs() as logged:
        build.build_allocator(site, SystemClock())
    assert build.engine_knows(site) == known
    warned = "engine_not_known_to_be_for_this_mllm" in [line["event"] for line in logged]
    assert warned == (not known)


def test_without_an_engine_the_default_is_motion_and_learned_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SHIPPED", tmp_path)
    assert allocator_name(parse_site({})) == "motion"
    site = parse_site({"defaults": {"allocator": "learned"}})
    with pytest.raises(ConfigError, match=r"no engine is shipped .* --engine PATH, or choose the allocator motion"):
        build.build_allocator(site, SystemClock())


def test_a_shipped_manifest_that_is_damaged_is_an_error_and_no_reason_for_motion(shipped):
    (shipped / "engine.json").write_text("{")
    with pytest.raises(EngineMismatch, match="no engine manifest"):
        allocator_name(parse_site({}))


def test_the_engine_that_comes_along_is_whole_and_knows_the_mllm_that_comes_along():
    site = parse_site({"defaults": {"allocator": "learned"}})
    assert build.engine_knows(site)
    build.build_allocator(site, SystemClock())
