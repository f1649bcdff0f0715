"""The script that alembic runs: the migrations that a store lacks, on the connection that `migrate` gives it."""

import sqlalchemy as sa
from alembic import context

from pipeline.delivery.tables import MIGRATION, tables

connection = context.config.attributes["connection"]
if not sa.inspect(connection).has_table(MIGRATION.name):
    # The releases before alembic wrote schema 1 by themselves.
    MIGRATION.create(connection)
    connection.execute(sa.insert(MIGRATION).values(version_num="streams_and_outbox"))
context.configure(connection=connection, target_metadata=tables, version_table=MIGRATION.name)
context.run_migrations()
