"""rendered prompts, several outputs, degradation and crashes of jobs; stored templates"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    kind = sa.Enum("generate", "render", name="jobkind", native_enum=False, length=16)
    op.add_column("jobs", sa.Column("kind", kind, nullable=False, server_default="generate"))
    op.add_column("jobs", sa.Column("crashes", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("prompt", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("outputs", Json, nullable=True))
    op.add_column("jobs", sa.Column("degraded", Json, nullable=True))

    op.create_table(
        "templates",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content", Json, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_templates"),
        sa.UniqueConstraint("tenant", "name", "version", name="uq_templates_tenant_name_version"),
    )


def downgrade() -> None:
    op.drop_table("templates")
    for column in ("degraded", "outputs", "prompt", "crashes", "kind"):
        op.drop_column("jobs", column)
