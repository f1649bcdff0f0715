"""Upgrades a store of an earlier release to this release: alembic's migrations, in one transaction."""

from pathlib import Path

from sqlalchemy import Connection

FOLDER = Path(__file__).parent


def migrate(connection: Connection) -> None:
    """Bring the schema of an older store to the newest inside the connection's transaction."""
    from alembic import command  # takes a second to import, which only an old store pays
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
