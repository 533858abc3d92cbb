"""Users' Jinja: the same text as transformers renders, and what the door refuses."""

from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from vlmq.chat_templates import check_template, render_chat
from vlmq.errors import ErrorCode, VlmqError

GUIDE = """\
{% for message in messages %}
{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{% if message['content'] is string %}
{{ message['content'] }}
{% else %}
{% for content in message['content'] %}
{% if content['type'] == 'image' %}
{{ '<|image|>' }}
{% elif content['type'] == 'text' %}
{{ content['text'] }}
{% endif %}
{% endfor %}
{% endif %}
{{ '<|eot_id|>' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""
TEMPLATES = [
    GUIDE,
    "  {%- if tools %}{{ tools | tojson(indent=2) }}{% endif %}\n  {%- set ns = namespace(n=0) %}\n"
    "{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ m.content[-1].text | trim }}\n{% endfor %}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
    "{% generation %}{{ m.content[-1].text }}{% endgeneration %}{% endfor %}",
    "{{ strftime_now('%Y') }}{% macro say(t) %}<{{ t }}>{% endmacro %}{{ say(messages[-1].content[0].text) }}",
    "{{ dict(a=1) | tojson }}{{ dict.fromkeys(['ä']) | tojson }}{{ {'<': '&'} | tojson }}"
    "{{ messages[-1].content[0].text }}",
    "{% for m in messages %}{{ m.content[0].text if m.content[0].text is defined else 'none' }};{% endfor %}",
]
CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What <is> it? "}]},
    {"role": "assistant", "content": [{"type": "text", "text": " A cat, "}]},
]


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("source", TEMPLATES)
def test_a_template_renders_as_transformers_does(source: str, continues: bool) -> None:
    variables: dict[str, Any] = {"bos_token": "<s>", "tools": [{"name": "f"}]}
    theirs: Any = render_jinja_template(
        [CHAT],
        chat_template=source,
        add_generation_prompt=not continues,
        continue_final_message=continues,
        **variables,
    )
    assert render_chat(source, CHAT, variables, continues=continues) == theirs[0][0]


def test_a_template_that_leaves_the_last_message_out_cannot_continue_it() -> None:
    with pytest.raises(VlmqError) as caught:
        render_chat("{{ messages[0].content[1].text }}", CHAT, {}, continues=True)
    assert "cannot be continued" in caught.value.message


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("{% for m in messages %}", ErrorCode.TEMPLATE_ERROR),
        ("{{ 1" + "1" * 5000 + " }}", ErrorCode.TEMPLATE_ERROR),
        ("{% nothing %}", ErrorCode.TEMPLATE_ERROR),
        ("{{ messages.__class__ }}", ErrorCode.TEMPLATE_FORBIDDEN),
        ("{{ messages['__class__'] }}", ErrorCode.TEMPLATE_FORBIDDEN),
        ("{{ lipsum.__globals__ }}", ErrorCode.TEMPLATE_FORBIDDEN),
        ("{{ messages | attr('x') }}", ErrorCode.TEMPLATE_FORBIDDEN),
        ("{% include 'a' %}", ErrorCode.TEMPLATE_FORBIDDEN),
        ("{% import 'a' as b %}", ErrorCode.TEMPLATE_FORBIDDEN),
        ("{% from 'a' import b %}", ErrorCode.TEMPLATE_FORBIDDEN),
        ("{% extends 'a' %}", ErrorCode.TEMPLATE_FORBIDDEN),
        ("{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}", ErrorCode.TEMPLATE_LIMIT),
        ("{% if a %}" * 5000 + "{% endif %}" * 5000, ErrorCode.TEMPLATE_LIMIT),
    ],
)
def test_the_door_refuses_what_it_can_see(source: str, code: ErrorCode) -> None:
    with pytest.raises(VlmqError) as caught:
        check_template(source, "chat_template")
    assert (caught.value.code, caught.value.param, caught.value.status) == (code, "chat_template", 422)


def test_the_door_runs_nothing() -> None:
    check_template("{{ 'x' * 10**10 }}{{ 9**(9**9) }}{% macro m() %}{{ m() }}{% endmacro %}", "chat_template")


def test_the_door_takes_the_guides_template() -> None:
    check_template(GUIDE, "chat_template")


def test_undeclared_variables_are_refused_by_name() -> None:
    check_template("{% for a in things %}{{ a }}{{ range(2) }}{% endfor %}", "p", declared=["things"])
    with pytest.raises(VlmqError, match="thinks"):
        check_template("{{ thinks }}", "p", declared=["things"])
