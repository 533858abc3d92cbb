"""The bodies that the interactive documentation offers work as they stand."""

import pytest

from api.schemas.examples import JOBS, TEMPLATES
from tests.guides.ask import Service

ANSWERS = {
    "image": "a red star in the top left and a blue circle in the bottom right.",
    "turns": "blue",
    "frames": "a red square moves right.",
    "chat template": "a red star in the top left and a blue circle in the bottom right.",
    "several texts": "a red star in the top left and a blue circle in the bottom right.",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_body_without_urls_is_answered_rightly(service: Service, name: str) -> None:
    _, body = JOBS[name]
    made = service.post("/v1/jobs", body).json()
    job = service.client.wait(made["id"], timeout_s=60)
    assert job.status == "completed", job.raw
    assert str(job.output_text).endswith(ANSWERS[name])


def test_the_stored_prompt_is_stored_and_then_used(service: Service) -> None:
    assert service.post("/v1/templates", TEMPLATES["prompt"][1]).status_code == 201
    made = service.post("/v1/jobs", JOBS["prompt"][1]).json()
    assert service.client.wait(made["id"], timeout_s=60).status == "completed"


def test_a_body_is_rendered_as_it_stands(service: Service) -> None:
    rendered = service.post("/v1/prompts/render", JOBS["image"][1])
    assert rendered.status_code == 200
    assert rendered.json()["images"] == 1
