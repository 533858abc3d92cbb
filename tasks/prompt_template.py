"""What a job's stored request says about its prompt -> what the engine is asked to render."""

from dataclasses import replace
from typing import Any

from engine.types import PromptRequest, RenderTemplate, TemplateCall
from media.template import ChatTemplateJob, TextsJob
from media.template_renderer import TemplateRenderer
from tasks.conversation import Conversation
from vlmq.cutoff import Cutoff


def fill_in(
    messages: list[dict[str, Any]], request: dict[str, Any], templates: TemplateRenderer, cutoff: Cutoff
) -> None:
    """Give the texts of a prompt template their variables; texts of other jobs are left as they are.

    Raises:
        VlmqError: TEMPLATE_ERROR, TEMPLATE_FORBIDDEN, TEMPLATE_LIMIT.
    """
    if "variables" not in request:
        return
    parts = [part for message in messages for part in message["content"] if part["type"] == "text"]
    job = TextsJob([part["text"] for part in parts], request["variables"])
    for part, text in zip(parts, templates.render(job, param="template", cutoff=cutoff), strict=True):
        part["text"] = text


def prompt_request(conversation: Conversation, request: dict[str, Any]) -> PromptRequest:
    """The conversation with the request's chat template and what goes with it."""
    return replace(
        conversation.as_prompt(),
        chat_template=request.get("chat_template"),
        template_kwargs=request.get("template_kwargs") or {},
        return_full_text=request.get("return_full_text", False),
    )


def chat_renderer(templates: TemplateRenderer) -> RenderTemplate:
    """What an engine calls for the chat template of a request."""

    def render(call: TemplateCall) -> str:
        job = ChatTemplateJob(call.source, call.messages, call.variables, call.continues)
        return templates.render(job, param="chat_template")[0]

    return render
