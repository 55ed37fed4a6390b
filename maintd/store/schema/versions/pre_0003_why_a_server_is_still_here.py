"""Since when a server is as it is, when an attempt to move it failed, what hinders it; whose residue is.

All of them are null until the server is seen again: what was not kept is not known.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("servers", sa.Column("since", sa.Double))
    op.add_column("servers", sa.Column("failed_at", sa.Double))
    op.add_column("servers", sa.Column("hindrance", sa.String(255)))
    op.add_column("residue", sa.Column("project_id", sa.String(255)))
