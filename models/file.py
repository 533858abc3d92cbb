"""Files that clients uploaded, or sent inline; the bytes are in the file store under their SHA-256."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.db import Base


class File(Base):
    """One file of one tenant. `inline` files came inside a job and are deleted with the last job that uses them."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    filename: Mapped[str | None]
    inline: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("tenant", "sha256"), Index("ix_files_sha256", "sha256"))
