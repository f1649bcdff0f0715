"""A store of an earlier release is brought to this one's schema, whole or not at all."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from pipeline.core.outcome import Decision
from pipeline.core.state import StreamState
from pipeline.delivery import migrations
from pipeline.delivery.store import Store
from pipeline.delivery.tables import HEAD, META, MIGRATION, SCHEMA_VERSION, tables
from pipeline.errors import ConfigError
from pipeline.testing import ManualClock
from tests.unit.test_store import event, ids, postgresql_url

DUMP = Path(__file__).parent / "data" / "store_of_schema_1.sql"
"""What a store of release 0.1, schema 1, held: two streams, three events, two of them still owed to a sink."""

NEWER_DUMP = DUMP.with_name("store_of_schema_4.sql")
"""The release before this one's, schema 4: two streams, two events, one of them owed, a label, an edit, a token."""


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(DUMP.read_text())
    connection.close()
    return path


@pytest.fixture
def old_postgresql():
    url = postgresql_url()
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    script = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
        tables.drop_all(connection)
        context = MigrationContext.configure(connection, opts={"fn": lambda _rev, _context: []})
        with sa_operations(context):
            script.get_revision("streams_and_outbox").module.upgrade()
    yield url, engine
    tables.drop_all(engine)
    engine.dispose()


def sa_operations(context):
    from alembic.operations import Operations

    return Operations.context(context)


def differences(engine):
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), tables)


def test_a_store_of_schema_1_opens_with_all_it_held(old):
    store = Store(str(old), ManualClock())
    state = StreamState.from_json(store.load("gate").state)
    assert (state.lineage, state.watches["fire@0123456789ab"].is_open) == ("a1b2c3", True)
    assert store.load("yard").resume_s == 12.5
    assert store.load("gate").updated_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert ids(store.pending_events("broker", 10)) == ["e-1", "e-2"]
    store.register_sinks(["broker"])
    store.commit([Decision("gate", "{}", (event("e-4"),), 6.0)])
    assert ids(store.history.events()) == ["e-4", "e-2", "e-1"]
    store.close()
    Store(str(old), ManualClock()).close()


def test_a_store_of_the_release_before_opens_with_all_it_held_and_its_streams_get_owners(tmp_path):
    path = tmp_path / "before.db"
    connection = sqlite3.connect(path)
    connection.executescript(NEWER_DUMP.read_text())
    connection.close()
    store = Store(str(path), ManualClock(), exclusive=True)
    assert StreamState.from_json(store.load("gate").state).lineage == "a1b2c3"
    assert store.load("yard").resume_s == 12.5
    assert ids(store.pending_events("broker", 10)) == ["e-2"]
    assert store.history.event("e-1").label == "true"
    store.take("gate")
    assert store.commit([Decision("gate", "{}", (event("e-4"),), 6.0)]) == 1
    store.close()
    engine = sa.create_engine(f"sqlite:///{path}")
    assert differences(engine) == []
    engine.dispose()


def test_a_migrated_store_has_the_schema_of_a_new_one(old, tmp_path):
    new = tmp_path / "new.db"
    for path in (old, new):
        Store(str(path), ManualClock()).close()
        engine = sa.create_engine(f"sqlite:///{path}")
        assert differences(engine) == []
        engine.dispose()
    connections = [sqlite3.connect(path) for path in (old, new)]
    versions = [
        c.execute("SELECT value FROM meta UNION SELECT version_num FROM resadapt_migration").fetchall()
        for c in connections
    ]
    assert versions[0] == versions[1] == [(str(SCHEMA_VERSION),), (HEAD,)]
    for connection in connections:
        connection.close()


def test_a_store_of_schema_1_on_a_server_is_migrated_too(old_postgresql):
    url, engine = old_postgresql
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO outbox (event_id, stream_id, type, time, data) VALUES ('e', 'gate', 't', :t, '{}')"),
            {"t": "2026-01-01T00:00:00+00:00"},
        )
    store = Store(url, ManualClock())
    assert ids(store.history.events()) == ["e"]
    store.close()
    assert differences(engine) == []


def test_a_migration_that_fails_leaves_the_old_store_as_it_was(old, monkeypatch):
    def break_down(connection):
        connection.execute(sa.text("ALTER TABLE outbox ADD COLUMN half TEXT"))
        raise ConfigError("the power went out")

    monkeypatch.setattr("pipeline.delivery.database.migrate", break_down)
    with pytest.raises(ConfigError, match="power"):
        Store(str(old), ManualClock())
    connection = sqlite3.connect(old)
    assert "half" not in str(connection.execute("SELECT sql FROM sqlite_master").fetchall())
    assert connection.execute("SELECT value FROM meta").fetchall() == [("1",)]
    connection.close()


def test_the_migrations_end_where_the_program_stands():
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [HEAD]
    assert len(list(script.walk_revisions())) == SCHEMA_VERSION


def test_a_store_that_a_newer_program_migrated_is_refused(old):
    connection = sqlite3.connect(old)
    connection.execute("UPDATE meta SET value = ?", (str(SCHEMA_VERSION + 1),))
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="written by a newer one"):
        Store(str(old), ManualClock())
    assert META.name == "meta"
    assert MIGRATION.name in tables.tables
