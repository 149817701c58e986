"""Columns named in the field's own words: quarantined instances, caveats"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # Both databases carry the new name into the partial index that uses the column.
    op.alter_column("instance", "aside", new_column_name="quarantined")
    op.alter_column("explanation", "doubt", new_column_name="caveat")


def downgrade() -> None:
    op.alter_column("explanation", "caveat", new_column_name="doubt")
    op.alter_column("instance", "quarantined", new_column_name="aside")
