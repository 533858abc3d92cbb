"""Ask the running service as the guides ask the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests

from vlmq.client import Client, Job

Message = dict[str, Any]
MODEL = "tiny-vlm"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: dict[str, Any]) -> Message:
    return {"role": "user", "content": list(parts)}


def assistant(words: str) -> Message:
    return {"role": "assistant", "content": [text(words)]}


def system(words: str) -> Message:
    return {"role": "system", "content": [text(words)]}


@dataclass
class Service:
    """One running service; `run` gives a job's end, `answer` its text."""

    client: Client
    url: str

    def run(self, messages: Sequence[Message], **fields: Any) -> Job:
        fields = {"model": MODEL, "generation": {"max_new_tokens": 50, "do_sample": False}} | fields
        job = self.client.wait(self.client.submit(messages, **fields).id, timeout_s=60)
        assert job.status == "completed", job.raw
        return job

    def answer(self, messages: Sequence[Message], **fields: Any) -> str:
        return str(self.run(messages, **fields).output_text).strip()

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=60)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=60)
