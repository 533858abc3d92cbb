"""Stored templates: a name, and numbered versions that never change."""

from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.db import Base


class Template(Base):
    """One version of a tenant's template; `content` is what was stored, with its kind and its variables."""

    __tablename__ = "templates"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str]
    version: Mapped[int]
    content: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("tenant", "name", "version"),)
