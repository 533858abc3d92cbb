"""A chat becomes the text that a model was trained on: the messages checked, then the chat template."""

import logging
from typing import Any

from jinja2.exceptions import TemplateError, TemplateSyntaxError

from engine.control_tokens import ControlTokens
from engine.types import Modality, PromptRequest, RenderTemplate, TemplateCall
from vlmq.errors import ErrorCode, VlmqError

logger = logging.getLogger(__name__)

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
# What we decide ourselves. `tokenize` would even make transformers fetch URLs.
_NOT_FOR_TEMPLATES = frozenset(
    {
        "conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
        "return_tensors", "return_dict", "return_assistant_tokens_mask", "load_audio_from_video", "processor_kwargs",
        "sanitize_control_tokens", "conversations", "self",
    }
)  # fmt: skip
_PYTHON_PART = "{'type': 'text'"


class ChatRenderer:
    """Renders chats with one checkpoint's template or the request's own, for many threads at once."""

    def __init__(self, processor: Any, modalities: frozenset[Modality], render: RenderTemplate | None = None) -> None:
        self._processor = processor
        self._render_theirs = render
        self._modalities = modalities
        self._control = ControlTokens(processor)
        self._placeholders: dict[str, str | None] = {
            kind: self._placeholder(kind) for kind in modalities if kind != "text"
        }

    def render(self, request: PromptRequest) -> str:
        """The prompt, with one placeholder for each image and video, and no control token from the user's text.

        Raises:
            VlmqError: INVALID_REQUEST, UNSUPPORTED_MODALITY, TEMPLATE_ERROR, TEMPLATE_FORBIDDEN or TEMPLATE_LIMIT.
        """
        messages = self._plain_messages(request)
        for name in request.template_kwargs:
            if name in _NOT_FOR_TEMPLATES:
                raise _invalid(f"{name} cannot be set for a template", f"template_kwargs.{name}")
        variables = self._control.break_up_all(dict(request.template_kwargs), "template_kwargs")
        try:
            text = self._apply(request, messages, variables)
        except Exception as error:
            if isinstance(error, VlmqError) and error.code is not ErrorCode.TEMPLATE_ERROR:
                raise
            # Some templates take a text's content as a string only, at least the system's.
            try:
                text = self._apply(request, [_with_string_content(message) for message in messages], variables)
            except Exception:  # noqa: BLE001
                raise _template_error(error, request) from error
        self._check_placeholders("image", text, len(request.images), request)
        self._check_placeholders("video", text, len(request.videos), request)
        return text

    def _plain_messages(self, request: PromptRequest) -> list[dict[str, Any]]:
        """The messages with parts that hold nothing but text or a bare image or video, and no control tokens."""
        if not request.messages:
            raise _invalid("messages takes at least one message", "messages")
        messages = []
        counts = {"image": 0, "video": 0}
        for index, message in enumerate(request.messages):
            where = f"messages.{index}"
            if message.get("role") not in _ROLES:
                raise _invalid(f"role takes one of {', '.join(sorted(_ROLES))}", f"{where}.role")
            rest = {key: value for key, value in message.items() if key not in ("role", "content")}
            content = message.get("content") or []
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            plain = self._plain_parts(parts, f"{where}.content", counts)
            messages.append({"role": message["role"], "content": plain, **self._control.break_up_all(rest, where)})
        last = messages[-1]["content"]
        if request.continues and not (last and last[-1]["type"] == "text"):
            problem = "An answer that is to be continued ends with text; end with a user's message, or with text"
            raise _invalid(problem, f"messages.{len(messages) - 1}.content")
        for kind, given in (("image", request.images), ("video", request.videos)):
            if counts[kind] != len(given):
                raise _invalid(
                    f"The messages have {counts[kind]} {kind} parts, but {len(given)} came along", "messages"
                )
        return messages

    def _plain_parts(self, parts: list[dict[str, Any]], where: str, counts: dict[str, int]) -> list[dict[str, Any]]:
        plain: list[dict[str, Any]] = []
        run: list[int] = []  # text parts with nothing between them

        def end_run() -> None:
            params = [f"{where}.{index}.text" for index in run]
            texts = self._control.break_up([plain[index]["text"] for index in run], params)
            for index, text in zip(run, texts, strict=True):
                plain[index]["text"] = text
            run.clear()

        for index, part in enumerate(parts):
            kind = part.get("type")
            if kind == "text" and isinstance(part.get("text"), str):
                run.append(index)
                plain.append({"type": "text", "text": part["text"]})
                continue
            if kind not in counts:
                raise _invalid("A content part takes type text (with text), image or video", f"{where}.{index}")
            if kind not in self._modalities:
                problem = f"This model does not take a {kind}"
                raise VlmqError(ErrorCode.UNSUPPORTED_MODALITY, problem, param=f"{where}.{index}")
            end_run()
            counts[kind] += 1
            plain.append({"type": kind})
        end_run()
        return plain

    def _apply(self, request: PromptRequest, messages: list[dict[str, Any]], variables: dict[str, Any]) -> str:
        if request.chat_template is None:
            text: str = self._processor.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=not request.continues,
                continue_final_message=request.continues,
                **variables,
            )
        else:
            text = self._apply_theirs(request.chat_template, messages, variables, continues=request.continues)
        if _PYTHON_PART in text and not any(_PYTHON_PART in str(message["content"]) for message in request.messages):
            raise TypeError("the template wrote a list of parts as Python would")
        return text

    def _apply_theirs(
        self, source: str, messages: list[dict[str, Any]], variables: dict[str, Any], *, continues: bool
    ) -> str:
        """Render a template that came with the request, which must not happen in this process."""
        if self._render_theirs is None:
            problem = "This engine takes no chat templates but the checkpoint's own"
            raise VlmqError(ErrorCode.UNSUPPORTED_PARAMETER, problem, param="chat_template")
        tokens = {name: str(token) for name, token in self._processor.tokenizer.special_tokens_map.items()}
        return self._render_theirs(TemplateCall(source, messages, tokens | variables, continues))

    def _check_placeholders(self, kind: Modality, text: str, given: int, request: PromptRequest) -> None:
        placeholder = self._placeholders.get(kind)
        if placeholder is None:
            return
        written = text.count(placeholder)
        if written != given:
            raise VlmqError(
                ErrorCode.TEMPLATE_ERROR,
                f"The chat template wrote {written} {kind} placeholders for {given} {kind}s; "
                f"it takes one {placeholder} for each",
                param="chat_template" if request.chat_template else "messages",
            )

    def _placeholder(self, kind: str) -> str | None:
        """The string that stands for one image or video before processing, where the checkpoint's template shows it."""
        token = getattr(self._processor, f"{kind}_token", None)
        if not isinstance(token, str):
            return None
        chat = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": "?"}]}]
        try:
            text = self._processor.apply_chat_template(chat, tokenize=False)
        except Exception:
            logger.info("the checkpoint's chat template renders no %s alone", kind, exc_info=True)
            return None
        return token if text.count(token) == 1 else None


def _with_string_content(message: dict[str, Any]) -> dict[str, Any]:
    parts = message["content"]
    if any(part["type"] != "text" for part in parts):
        return message
    return message | {"content": "".join(part["text"] for part in parts)}


def _template_error(error: Exception, request: PromptRequest) -> VlmqError:
    if isinstance(error, VlmqError):
        return error
    param = "chat_template" if request.chat_template else "messages"
    if isinstance(error, TemplateSyntaxError):
        problem = f"The chat template is not valid Jinja (line {error.lineno}): {error.message}"
    elif isinstance(error, TemplateError):
        problem = f"The chat template refused the messages: {error.message}"
    elif request.chat_template is None and "chat template" in str(error):
        problem = "This model has no chat template of its own; send one as chat_template"
        param = "chat_template"
    else:
        logger.info("a chat template failed", exc_info=error)
        problem = f"The chat template failed on these messages ({type(error).__name__})"
    return VlmqError(ErrorCode.TEMPLATE_ERROR, problem, param=param)


def _invalid(problem: str, param: str) -> VlmqError:
    return VlmqError(ErrorCode.INVALID_REQUEST, problem, param=param)
