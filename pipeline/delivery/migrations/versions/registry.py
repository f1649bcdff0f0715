"""Schema 2: the registry with its history, keys of the API, answers kept, and events that can be listed."""

import sqlalchemy as sa
from alembic import op

revision = "registry"
down_revision = "streams_and_outbox"


def upgrade() -> None:
    """Add what the registry and its API need; events and states stay as they are."""
    op.add_column("outbox", sa.Column("label", sa.Text))
    op.add_column("outbox", sa.Column("written_bytes", sa.BigInteger, nullable=False, server_default="0"))
    for column in ("stream_id", "watch_id", "type"):
        op.create_index(f"ix_outbox_{column.removesuffix('_id')}", "outbox", [column, "seq"])
    _answers()
    _registry()
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("name", "hash", "role", "tags")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("created_at", "created_by")),
        *(sa.Column(name, sa.Text) for name in ("expires_at", "last_used_at", "revoked_at")),
    )
    op.execute("UPDATE meta SET value = '2' WHERE key = 'schema'")


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _answers() -> None:
    op.create_table(
        "hop_answers",
        sa.Column("seq", _number(), primary_key=True, autoincrement=True),
        sa.Column("stream_id", sa.Text, nullable=False),
        sa.Column("end_s", sa.Double, nullable=False),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("written_bytes", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_hop_answers_stream", "hop_answers", ["stream_id", "seq"])


def _registry() -> None:
    op.create_table(
        "registry_entry",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("slug", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("owner", "spec", "created_at", "updated_at")),
    )
    op.create_table(
        "registry_edit",
        sa.Column("seq", _number(), primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("at", "actor")),
        *(sa.Column(name, sa.Text) for name in ("before", "after")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_registry_edit_entry", "registry_edit", ["kind", "slug", "seq"])
