"""indexes of prompts to be rendered, and for counting jobs"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    waits = sa.text("status = 'queued' AND kind = 'render'")
    op.create_index(
        "ix_jobs_claim_render",
        "jobs",
        ["model", sa.literal_column("priority DESC"), "id"],
        postgresql_where=waits,
        sqlite_where=waits,
    )
    renders = sa.text("kind = 'render'")
    op.create_index("ix_jobs_render", "jobs", ["created_at"], postgresql_where=renders, sqlite_where=renders)
    op.create_index("ix_jobs_model_status", "jobs", ["model", "status"])


def downgrade() -> None:
    op.drop_index("ix_jobs_model_status", "jobs")
    op.drop_index("ix_jobs_render", "jobs")
    op.drop_index("ix_jobs_claim_render", "jobs")
