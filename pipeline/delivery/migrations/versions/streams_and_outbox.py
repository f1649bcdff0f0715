"""Schema 1: where streams stand, and the events that have to go out."""

import sqlalchemy as sa
from alembic import op

revision = "streams_and_outbox"
down_revision = None


def upgrade() -> None:
    """Create the tables of the first release."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table("meta", sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))
    op.create_table(
        "stream_state",
        sa.Column("stream_id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("resume_s", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("seq", number, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.Text, nullable=False, unique=True),
        sa.Column("stream_id", sa.Text, nullable=False),
        sa.Column("watch_id", sa.Text),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "delivery",
        sa.Column("sink", sa.Text, primary_key=True),
        sa.Column("seq", number, sa.ForeignKey("outbox.seq", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("ix_delivery_seq", "delivery", ["seq"])
    op.execute("INSERT INTO meta (key, value) VALUES ('schema', '1')")
