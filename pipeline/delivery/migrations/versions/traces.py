"""Schema 6: the traces to which events belong."""

import sqlalchemy as sa
from alembic import op

revision = "traces"
down_revision = "fleet"


def upgrade() -> None:
    """Add the columns; no event of before was traced."""
    op.add_column("outbox", sa.Column("traceparent", sa.Text))
    op.add_column("outbox", sa.Column("tracestate", sa.Text))
    op.execute("UPDATE meta SET value = '6' WHERE key = 'schema'")
