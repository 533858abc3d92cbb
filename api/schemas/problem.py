"""How an error is written."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ErrorBody(BaseModel):
    """The error as OpenAI's clients read it."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    code: str
    param: str | None = Field(description="the field at fault, dotted")


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:vlmq:error:invalid_request",
                    "title": "The request is not valid",
                    "status": 422,
                    "detail": "generation.temperature: Input should be less than or equal to 2.",
                    "instance": "/v1/jobs",
                    "request_id": "7d1f6a1e9f2b4c0e8a55f0c1d2e3f4a5",
                    "error": {
                        "message": "generation.temperature: Input should be less than or equal to 2.",
                        "type": "invalid_request_error",
                        "code": "invalid_request",
                        "param": "generation.temperature",
                    },
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None
    error: ErrorBody
    errors: list[ErrorBody] | None = Field(None, description="all of them, when there are several")
