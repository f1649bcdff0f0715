"""Schema 3: what evidence is kept of which event, and what people have said of events and of missed intervals."""

import sqlalchemy as sa
from alembic import op

revision = "evidence"
down_revision = "registry"


def upgrade() -> None:
    """Add the tables; labels that events have keep their meaning under their new names."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "evidence",
        sa.Column("event_id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("stream_id", "watch_id", "type", "time")),
        sa.Column("held_by", sa.Text),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_index("ix_evidence_watch", "evidence", ["stream_id", "watch_id", "time"])
    op.create_index("ix_evidence_time", "evidence", ["time"])
    op.create_table(
        "evidence_file",
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "evidence_part",
        sa.Column("event_id", sa.Text, sa.ForeignKey("evidence.event_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("path", sa.Text, nullable=False),
    )
    op.create_index("ix_evidence_part_path", "evidence_part", ["path"])
    op.create_table(
        "label",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("stream_id", "watch_id", "kind")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("start_utc", "end_utc", "note", "by", "at")),
        *(sa.Column(name, sa.Text) for name in ("withdrawn_at", "withdrawn_by")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_label_watch", "label", ["watch_id", "id"])
    op.create_index("ix_label_event", "label", ["event_id"])
    op.execute("UPDATE outbox SET label = 'false' WHERE label = 'false_alarm'")
    op.execute("UPDATE outbox SET label = 'fixture' WHERE label = 'ignore'")
    op.execute("UPDATE meta SET value = '3' WHERE key = 'schema'")
