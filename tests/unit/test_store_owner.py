"""A store has one owner, and says by name when it is not this process any more or can never be used again."""

import os
import stat
from contextlib import closing

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, NotOwner, StoreDamaged, StoreUnavailable
from pipeline.testing import ManualClock
from tests.unit.test_store import decision, ids
from tests.unit.test_store import server as server
from tests.unit.test_store import url as url


def opened(address, **more):
    return Store(address, ManualClock(), exclusive=True, **more)


def locks_do_not_hold(store, tmp_path):
    """Let another process in, as a lost connection to a server does, or a lock on another machine's mount."""
    (tmp_path / "store.db.lock").unlink(missing_ok=True)
    if not store.database.is_sqlite:
        cut_off(store)


def cut_off(store):
    """Let the server end the connection that holds its lock."""
    pid = store.database.claimed.connection.driver_connection.info.backend_pid
    with store.database.engine.connect() as other:
        other.execute(sa.select(sa.func.pg_terminate_backend(pid, 5000)))


def test_an_owner_that_was_overtaken_writes_nothing_more(url, tmp_path):
    first = opened(url)
    first.commit([decision("1", state="first")])
    locks_do_not_hold(first, tmp_path)
    second = opened(url)
    second.commit([decision("2", state="second")])
    for _ in range(3):  # a lost connection may be noticed first, as unavailable
        with pytest.raises((NotOwner, StoreUnavailable)) as refused:
            first.commit([decision("3", state="late")])
    assert refused.type is NotOwner
    with pytest.raises(NotOwner):
        first.prune(0)
    assert second.load("gate").state == "second"
    assert ids(second.history.events()) == ["2", "1"]
    first.close()
    second.close()


def test_a_lost_connection_costs_one_try_and_the_lock_is_taken_again(server):
    store = opened(server)
    cut_off(store)
    with pytest.raises(StoreUnavailable):
        store.commit([decision("a")])
    assert store.commit([decision("a")]) == 1
    with pytest.raises(ConfigError, match="held by"):
        opened(server)
    store.close()


def test_a_file_has_one_owner_by_whatever_name_it_is_opened(tmp_path):
    path = tmp_path / "store.db"
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    with closing(opened(str(path))):
        link.symlink_to(path)
        with pytest.raises(ConfigError, match="held by process"):
            opened(str(link))
    with closing(opened(str(link))), pytest.raises(ConfigError, match="held by process"):
        opened(str(path))
    os.link(path, tmp_path / "second.db")
    with pytest.raises(ConfigError, match="hard link"):
        opened(str(path))


def test_nobody_else_may_read_what_is_made(tmp_path):
    os.umask(before := os.umask(0))
    try:
        os.umask(0)
        store = opened(str(tmp_path / "store.db"))
        store.commit([decision("1")])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert set(modes) >= {"store.db", "store.db-wal", "store.db.lock"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("loss", ["removed", "replaced"])
def test_a_file_that_was_taken_away_is_noticed_before_anything_is_lost_with_it(tmp_path, loss):
    path = tmp_path / "store.db"
    store = opened(str(path))
    path.rename(tmp_path / "moved.db")
    if loss == "replaced":
        path.write_bytes((tmp_path / "moved.db").read_bytes())
    with pytest.raises(StoreDamaged, match="removed or replaced"):
        store.commit([decision("1")])
    with pytest.raises(StoreDamaged, match="removed or replaced"):
        store.load("gate")
    store.close()
    assert path.exists() == (loss == "replaced")


def test_a_store_whose_name_holds_the_marks_of_a_url_is_kept_under_that_name(tmp_path):
    path = tmp_path / "50% of #1, yes.db"
    store = opened(str(path))
    store.commit([decision("1")])
    store.close()
    assert path.stat().st_size > 0


def test_a_file_that_is_damaged_while_in_use_is_told_apart_from_one_that_is_busy(tmp_path):
    path = tmp_path / "store.db"
    store = opened(str(path))
    for n in range(50):
        store.commit([decision(str(n), state="x" * 2000)])
    with store.database.reading() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    store = opened(str(path))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(StoreDamaged, match="damaged"):
        for n in range(50, 100):
            store.commit([decision(str(n))])
    store.close()


def test_an_event_of_a_known_id_that_says_something_else_is_an_error_that_is_seen(url):
    store = opened(url)
    store.commit([decision("1")])
    with capture_logs() as logs:
        assert store.commit([decision("1")]) == 0
        assert logs == []
        assert store.commit([decision("1", stream="yard"), decision("2")]) == 1
    assert [(entry["log_level"], entry["event_id"], entry["differing"]) for entry in logs] == [
        ("error", "1", ["stream_id"])
    ]
    assert store.conflicts == 1
    assert ids(store.history.events()) == ["2", "1"]
    store.close()


@pytest.fixture
def admin(server):
    engine = sa.create_engine(sa.make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_a_table_that_others_lock_is_unavailable_after_a_while_not_for_ever(server, admin, monkeypatch):
    monkeypatch.setattr("pipeline.delivery.database.BUSY_TIMEOUT_S", 0.2)
    with closing(opened(server)) as store:
        admin.execution_options(isolation_level="READ COMMITTED")
        admin.execute(sa.text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            store.commit([decision("1")])
        admin.rollback()
        assert store.commit([decision("1")]) == 1


def test_a_server_that_has_become_read_only_is_unavailable(server, admin):
    database = sa.make_url(server).database
    with closing(opened(server)) as store:
        admin.exec_driver_sql(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
        try:
            cut_off(store)
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    store.commit([decision("1")])
        finally:
            admin.exec_driver_sql("SET default_transaction_read_only = off")
            admin.exec_driver_sql(f'ALTER DATABASE "{database}" RESET default_transaction_read_only')
        cut_off(store)
        with pytest.raises(StoreUnavailable):
            store.commit([decision("1")])
        assert store.commit([decision("1")]) == 1
