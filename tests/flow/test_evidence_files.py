"""Places of evidence, a folder and a bucket, keep one contract; the bucket is that of a server that speaks S3."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.delivery.manifests import StoredFile
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError
from pipeline.evidence.bundle import EvidenceDamaged
from pipeline.evidence.files import MARK, EvidenceFiles
from pipeline.evidence.folder import Folder
from pipeline.evidence.shelf import Shelf
from pipeline.service.service import Service
from pipeline.testing import MemorySink
from tests.services import require

DAY = datetime(2026, 11, 29, 8, 0, tzinfo=UTC)
KEY = "AKIASECRETEXAMPLE"


def has_s3() -> bool:
    try:
        import moto.server  # noqa: F401
        import obstore  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def server():
    require(has_s3(), "needs pip install 'resadapt-stream[s3]' moto[server]")
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    running.stop()


@pytest.fixture
def environment(server, monkeypatch):
    values = {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": KEY, "REGION": "eu-central-1"}
    for name, value in {**values, "ENDPOINT_URL": server}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    httpx.put(f"{server}/cameras", content=b"").raise_for_status()


@pytest.fixture(params=["folder", "bucket"])
def files(request, tmp_path) -> EvidenceFiles:
    if request.param == "folder":
        place: EvidenceFiles = Folder(tmp_path / "evidence")
    else:
        request.getfixturevalue("environment")
        from pipeline.evidence.bucket import EvidenceBucket

        place = EvidenceBucket(f"s3://cameras/{tmp_path.name}")
    place.open("store-1")
    return place


def test_what_is_put_is_read_back_and_is_there_once(files):
    stored, is_new = files.put(b"picture", "jpg", DAY)
    assert stored.path.startswith("2026-11-29/")
    assert is_new
    assert files.put(b"picture", "jpg", DAY) == (stored, False)
    assert files.has(stored)
    assert files.read(stored, "snapshot") == b"picture"
    assert files.free_bytes() > 0


def test_what_is_removed_is_gone_and_removing_it_again_is_fine(files):
    stored, _ = files.put(b"picture", "jpg", DAY)
    for _ in range(2):
        files.remove([stored.path, "../elsewhere", MARK])
    assert not files.has(stored)
    with pytest.raises(EvidenceDamaged, match="the snapshot of this evidence is gone"):
        files.read(stored, "snapshot")
    files.open("store-1")


def test_only_what_nobody_names_is_swept(files):
    kept, _ = files.put(b"kept", "png", DAY)
    stray, _ = files.put(b"stray", "mp4", DAY)
    assert files.sweep(frozenset({kept.path})) == 1
    assert (files.has(kept), files.has(stray)) == (True, False)
    files.open("store-1")


def test_changed_bytes_and_paths_of_others_are_no_evidence(files):
    stored, _ = files.put(b"picture", "jpg", DAY)
    with pytest.raises(EvidenceDamaged, match="was changed"):
        files.read(StoredFile(stored.path, "0" * 64, stored.bytes), "snapshot")
    for path in ("../../etc/passwd", MARK, "2026-11-29/aa/x.jpg"):
        with pytest.raises(EvidenceDamaged, match="no file of the evidence"):
            files.read(StoredFile(path, stored.sha256, 1), "snapshot")


def test_a_place_belongs_to_one_store(files):
    files.open("store-1")
    with pytest.raises(ConfigError, match="holds the evidence of another store"):
        files.open("store-2")


def test_many_who_put_the_same_at_once_all_have_it(files):
    found = []
    threads = [threading.Thread(target=lambda: found.append(files.put(b"same", "png", DAY)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert files.read(found[0], "segment") == b"same"


async def test_a_service_keeps_its_evidence_in_a_bucket(environment, tmp_path):
    where = "s3://cameras/yard"
    site = parse_site(
        {
            "streams": {"gate": {"url": "synthetic:?seconds=25&width=160&height=96&fps=4"}},
            "watches": {"thing": {"question": "is a thing in view?"}},
            "mllm": "null",
            "store": f"sqlite:///{tmp_path}/service.db",
            "evidence": {"dir": where},
        }
    )
    async with Service(site, SystemClock(), [sink := MemorySink("memory")], insist=False) as service:
        await service.finished()
    opened = next(event for event in sink.events if event.type == "watch.opened")
    store = Store(site.store, SystemClock())
    shelf = Shelf(store.database, service.evidence_files)
    kept = shelf.of(opened.id)
    assert shelf.snapshot(kept)[:2] == b"\xff\xd8"
    assert shelf.segment(kept, 0)[:4] == b"\x89PNG"
    store.close()
    assert not list(Path(tmp_path).glob("*evidence*"))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("s3://user:s3cret@cameras/yard", "without credentials"),
        ("s3://", "s3://BUCKET/PREFIX"),
        ("s3:cameras", "another scheme"),
        ("gs://cameras", "URL of 'gs'"),
        ("s3://cameras/a b?x=1", "s3://BUCKET/PREFIX"),
    ],
)
def test_what_is_no_place_is_refused_by_name(where, said):
    if said == "another scheme":
        assert parse_site({"evidence": {"dir": where}}).evidence.bucket is None
        return
    with pytest.raises(ConfigError, match=r"evidence\.dir") as refused:
        parse_site({"evidence": {"dir": where}})
    assert said in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_bucket_that_is_not_there_is_an_error_of_the_place_without_secrets(environment):
    from pipeline.evidence.bucket import EvidenceBucket

    with pytest.raises(OSError, match="s3://nowhere/x cannot be opened") as failed:
        EvidenceBucket("s3://nowhere/x").open("store-1")
    assert KEY not in str(failed.value)
