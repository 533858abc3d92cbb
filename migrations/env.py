"""Alembic's entry: runs the migrations on the connection that `migrations.schema` hands over."""

from alembic import context

import models.delivery
import models.file
import models.idempotency
import models.job
import models.template
import models.worker  # noqa: F401
from models.db import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
