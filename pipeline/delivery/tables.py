"""The tables of the store. A change here is a migration in `migrations/versions`, and a SCHEMA_VERSION more."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import sqlalchemy as sa

SCHEMA_VERSION = 6
HEAD = "traces"
"""The newest migration, which leads to SCHEMA_VERSION."""

_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts up a plain INTEGER only

tables = sa.MetaData()
META = sa.Table(
    "meta", tables, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)
MIGRATION = sa.Table("resadapt_migration", tables, sa.Column("version_num", sa.String(32), primary_key=True))
"""Where alembic notes which migration the database has. Stores of schema 1 lack it."""

STREAM_STATE = sa.Table(
    "stream_state",
    tables,
    sa.Column("stream_id", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("resume_s", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Text, nullable=False),
)
OUTBOX = sa.Table(
    "outbox",
    tables,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.Text, nullable=False, unique=True),
    sa.Column("stream_id", sa.Text, nullable=False),
    sa.Column("watch_id", sa.Text),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("label", sa.Text),
    sa.Column("written_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("traceparent", sa.Text),
    sa.Column("tracestate", sa.Text),
    sa.Index("ix_outbox_stream", "stream_id", "seq"),
    sa.Index("ix_outbox_watch", "watch_id", "seq"),
    sa.Index("ix_outbox_type", "type", "seq"),
    sqlite_autoincrement=True,  # a pruned number is never given again
)
"""Every event kept. `written_bytes` is how much data has been written up to and with a row, ever: the difference of two
rows is what lies between them. `traceparent` and `tracestate` name the hop that was traced, if it was."""

DELIVERY = sa.Table(
    "delivery",
    tables,
    sa.Column("sink", sa.Text, primary_key=True),
    sa.Column("seq", sa.ForeignKey("outbox.seq", ondelete="CASCADE"), primary_key=True, index=True),
)
HOP_ANSWERS = sa.Table(
    "hop_answers",
    tables,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("stream_id", sa.Text, nullable=False),
    sa.Column("end_s", sa.Double, nullable=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("written_bytes", sa.BigInteger, nullable=False),
    sa.Index("ix_hop_answers_stream", "stream_id", "seq"),
    sqlite_autoincrement=True,
)
"""What was asked and answered at each hop. `written_bytes` as in OUTBOX."""

ENTRY = sa.Table(
    "registry_entry",
    tables,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("slug", sa.Text, primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Text, nullable=False),
)
"""What is wanted: one row for each stream, watch, sink."""

EDIT = sa.Table(
    "registry_edit",
    tables,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("slug", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text),
    sa.Index("ix_registry_edit_entry", "kind", "slug", "seq"),
    sqlite_autoincrement=True,
)
"""Who changed what, when: the spec before (none: it was added) and after (none: it was removed)."""

API_KEY = sa.Table(
    "api_key",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Text),
    sa.Column("last_used_at", sa.Text),
    sa.Column("revoked_at", sa.Text),
)

EVIDENCE = sa.Table(
    "evidence",
    tables,
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("stream_id", sa.Text, nullable=False),
    sa.Column("watch_id", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("held_by", sa.Text),
    sa.Column("data", sa.Text, nullable=False),
    sa.Index("ix_evidence_watch", "stream_id", "watch_id", "time"),
    sa.Index("ix_evidence_time", "time"),
)
"""The manifest of what is kept of an event. `held_by` is who said that it stays."""

EVIDENCE_FILE = sa.Table(
    "evidence_file",
    tables,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
)
"""Files of the evidence folder, each once however many events rest on it."""

EVIDENCE_PART = sa.Table(
    "evidence_part",
    tables,
    sa.Column("event_id", sa.ForeignKey("evidence.event_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, nullable=False, index=True),
)
"""Which file an event's picture or clip is."""

LABEL = sa.Table(
    "label",
    tables,
    sa.Column("id", _Number, primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.Text),
    sa.Column("stream_id", sa.Text, nullable=False),
    sa.Column("watch_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("start_utc", sa.Text, nullable=False),
    sa.Column("end_utc", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("withdrawn_at", sa.Text),
    sa.Column("withdrawn_by", sa.Text),
    sa.Index("ix_label_watch", "watch_id", "id"),
    sa.Index("ix_label_event", "event_id"),
    sqlite_autoincrement=True,
)
"""What people have said, never changed: a new label of an event withdraws the one before."""
API_SESSION = sa.Table(
    "api_session",
    tables,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Text, nullable=False),
)
"""Browsers that have logged in with a key. `digest` is the SHA-256 of what the browser sends."""

STREAM_OWNER = sa.Table(
    "stream_owner",
    tables,
    sa.Column("stream_id", sa.Text, primary_key=True),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Index("ix_stream_owner_holder", "holder"),
)
"""The owner of each stream: the fencing token, which only rises, and the process that took it last (empty: let go)."""

OWNER_LEASE = sa.Table(
    "owner_lease",
    tables,
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("until_s", sa.Double, nullable=False),
)
"""Until when (seconds since 1970 by the database's clock) nobody may take what a process holds. One row for a process,
however many streams it has."""

FLEET_NODE = sa.Table(
    "fleet_node",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("wanted", sa.Text, nullable=False),
    sa.Column("capacity", sa.Double, nullable=False),
    sa.Column("most_streams", sa.Integer),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("joined_at", sa.Text, nullable=False),
    sa.Column("skew_s", sa.Double, nullable=False),
    sa.Column("report", sa.Text, nullable=False),
)
"""The nodes of a fleet: what each offers, what people want of it (active, cordoned, drained), how its streams are."""

FLEET_PLACE = sa.Table(
    "fleet_place",
    tables,
    sa.Column("stream_id", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, nullable=False, index=True),
)
"""On which node each stream of a fleet is to run."""


_T = TypeVar("_T")
_KEYS_PER_QUERY = 500


def portions(keys: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Keys in pieces that fit a query's parameters."""
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        yield keys[start : start + _KEYS_PER_QUERY]
