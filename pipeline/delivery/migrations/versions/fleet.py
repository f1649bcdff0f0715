"""Schema 5: an owner of each stream, and the nodes of a fleet."""

import sqlalchemy as sa
from alembic import op

revision = "fleet"
down_revision = "sessions"


def upgrade() -> None:
    """Add the tables; nobody owns a stream yet, and there are no nodes."""
    op.create_table(
        "stream_owner",
        sa.Column("stream_id", sa.Text, primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
    )
    op.create_index("ix_stream_owner_holder", "stream_owner", ["holder"])
    op.create_table(
        "owner_lease",
        sa.Column("holder", sa.Text, primary_key=True),
        sa.Column("until_s", sa.Double, nullable=False),
    )
    op.create_table(
        "fleet_node",
        sa.Column("name", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("holder", "version", "wanted")),
        sa.Column("capacity", sa.Double, nullable=False),
        sa.Column("most_streams", sa.Integer),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("tags", "joined_at")),
        sa.Column("skew_s", sa.Double, nullable=False),
        sa.Column("report", sa.Text, nullable=False),
    )
    op.create_table(
        "fleet_place",
        sa.Column("stream_id", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, nullable=False),
    )
    op.create_index("ix_fleet_place_node", "fleet_place", ["node"])
    op.execute("UPDATE meta SET value = '5' WHERE key = 'schema'")
