"""What alembic runs for every migration: on the connection and in the transaction that `Database.migrate` opened."""

from alembic import context

from sfumato.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite cannot alter most of a table; batch mode copies it instead.
    render_as_batch=True,
)
context.run_migrations()
