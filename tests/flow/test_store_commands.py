"""`resadapt store`, and keys that are made elsewhere: what jobs beside a service run."""

import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.delivery.store import Store
from pipeline.delivery.tables import SCHEMA_VERSION
from pipeline.errors import ConfigError
from pipeline.registry.keys import Keys
from pipeline.testing import ManualClock

GIVEN = "rsk_0123456789ab_" + "Z" * 43


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.yaml"
    file.write_text(f"store: sqlite:///{tmp_path}/store.db\nmllm: 'null'\n")
    return file


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(GIVEN + "\n")
    return file


def resadapt(*arguments: object) -> str:
    """What a command prints; its error is raised."""
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def keys_in(site: Path) -> Keys:
    return Keys(Store(str(site.with_name("store.db")), ManualClock()).database, ManualClock())


def test_a_new_store_is_made_and_an_old_one_brought_to_the_schema(site: Path) -> None:
    assert f"schema {SCHEMA_VERSION}" in resadapt("store", "migrate", "-c", site)
    assert f"schema {SCHEMA_VERSION}" in resadapt("store", "migrate", "-c", site)
    with sqlite3.connect(site.with_name("store.db")) as store:
        assert store.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == (str(SCHEMA_VERSION),)


def test_a_store_is_migrated_beside_a_service_that_holds_it(site: Path) -> None:
    service = Store(str(site.with_name("store.db")), ManualClock(), exclusive=True)
    assert f"schema {SCHEMA_VERSION}" in resadapt("store", "migrate", "-c", site)
    service.close()


def test_a_copy_holds_what_is_committed_while_the_service_writes_on(site: Path, tmp_path: Path) -> None:
    service = Store(str(site.with_name("store.db")), ManualClock(), exclusive=True)
    keys = Keys(service.database, ManualClock())
    _, before = keys.create("before", "viewer")
    copy = tmp_path / "copy.db"
    assert "bytes" in resadapt("store", "backup", copy, "-c", site)
    _, after = keys.create("after", "viewer")
    service.close()
    assert copy.stat().st_mode & 0o777 == 0o600
    restored = Keys(Store(str(copy), ManualClock(), exclusive=True).database, ManualClock())
    assert restored.verify(before)
    assert restored.verify(after) is None


def test_a_copy_replaces_nothing_and_needs_a_store(site: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no store"):
        resadapt("store", "backup", tmp_path / "copy.db", "-c", site)
    resadapt("store", "migrate", "-c", site)
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(ConfigError, match="expected a new file"):
        resadapt("store", "backup", tmp_path / "copy.db", "-c", site)
    assert (tmp_path / "copy.db").read_text() == "mine"


def test_a_copy_of_what_is_no_database_is_refused_and_leaves_nothing(site: Path, tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("not a database at all, but long enough to be looked at" * 40)
    with pytest.raises(ConfigError, match="cannot be copied"):
        resadapt("store", "backup", tmp_path / "copy.db", "-c", site)
    assert not (tmp_path / "copy.db").exists()


def test_a_store_on_a_server_is_copied_by_its_own_means(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("store: postgresql://u:hunter2@db/resadapt\nmllm: 'null'\n")
    with pytest.raises(ConfigError, match="pg_dump") as refused:
        resadapt("store", "backup", tmp_path / "copy.db", "-c", file)
    assert "hunter2" not in str(refused.value)


def test_a_given_key_is_put_into_the_store_once_and_never_shown(site: Path, key_file: Path) -> None:
    for _ in range(2):
        said = resadapt("key", "create", "admin", "--role", "admin", "--given", key_file, "-c", site)
        assert "Z" * 5 not in said
    found = keys_in(site).verify(GIVEN)
    assert found is not None
    assert (found.name, found.role) == ("admin", "admin")
    assert len(keys_in(site).all()) == 1


def test_a_given_key_that_was_revoked_stays_so(site: Path, key_file: Path) -> None:
    resadapt("key", "create", "admin", "--role", "admin", "--given", key_file, "-c", site)
    keys_in(site).revoke("admin")
    resadapt("key", "create", "admin", "--role", "admin", "--given", key_file, "-c", site)
    assert keys_in(site).verify(GIVEN) is None


def test_another_key_of_the_name_is_not_replaced(site: Path, key_file: Path) -> None:
    resadapt("key", "create", "admin", "--role", "admin", "--given", key_file, "-c", site)
    key_file.write_text(GIVEN.replace("0123", "4567"))
    with pytest.raises(Exception, match="there is a key 'admin' already"):
        resadapt("key", "create", "admin", "--role", "admin", "--given", key_file, "-c", site)


@pytest.mark.parametrize(
    "text", ["", "hunter2", "rsk_0123456789ab_short", "rsk_0123456789AB_" + "z" * 43, GIVEN + "!", f"x{GIVEN}"]
)
def test_a_text_that_is_no_key_is_refused_and_not_shown(site: Path, key_file: Path, text: str) -> None:
    key_file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        resadapt("key", "create", "admin", "--given", key_file, "-c", site)
    assert not text or text not in str(refused.value)


def test_a_given_key_needs_a_file_and_a_site(site: Path, key_file: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        resadapt("key", "create", "admin", "--given", key_file)
    with pytest.raises(ConfigError, match="cannot be read"):
        resadapt("key", "create", "admin", "--given", "/nowhere/key", "-c", site)
