"""Schema 4: sessions of browsers that have logged in."""

import sqlalchemy as sa
from alembic import op

revision = "sessions"
down_revision = "evidence"


def upgrade() -> None:
    """Add the table of sessions; nobody has one yet."""
    op.create_table(
        "api_session",
        sa.Column("digest", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("key_id", "created_at", "expires_at")),
    )
    op.execute("UPDATE meta SET value = '4' WHERE key = 'schema'")
