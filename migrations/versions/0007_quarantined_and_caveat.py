"""Columns renamed to the standard terms quarantined and caveat"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # Both databases apply the new name to the partial index that uses the column.
    op.alter_column("instance", "aside", new_column_name="quarantined")
    op.alter_column("explanation", "doubt", new_column_name="caveat")


def downgrade() -> None:
    op.alter_column("explanation", "caveat", new_column_name="doubt")
    op.alter_column("instance", "quarantined", new_column_name="aside")
