"""Lists: newest first, `limit` a page, `after` the last id of the page before."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import Field
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.schemas.strict import Query
from vlmq.errors import ErrorCode, VlmqError

Row = TypeVar("Row")


class PageQuery(Query):
    limit: int = Field(20, ge=1, le=100)
    after: str | None = Field(None, description="the `last_id` of the page before")


def page(
    session: Session, rows: Select[Row], id_column: InstrumentedAttribute[str], query: PageQuery, prefix: str
) -> tuple[Sequence[Row], bool]:
    """One page of `rows`, and whether more follow.

    Raises:
        VlmqError: INVALID_CURSOR.
    """
    if query.after is not None:
        # Ids sort by the time they were made, so one that was deleted since is still a place in the list.
        if re.fullmatch(rf"{prefix}_[0-9a-f]{{32}}", query.after) is None:
            message = f"after takes the `last_id` of the page before, an id such as {prefix}_0193…."
            raise VlmqError(ErrorCode.INVALID_CURSOR, message, param="after")
        rows = rows.where(id_column < query.after)
    found = session.scalars(rows.order_by(id_column.desc()).limit(query.limit + 1)).all()
    return found[: query.limit], len(found) > query.limit


def as_list(views: list[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    return {
        "object": "list",
        "data": views,
        "has_more": has_more,
        "first_id": views[0]["id"] if views else None,
        "last_id": views[-1]["id"] if views else None,
    }
