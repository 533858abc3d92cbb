"""Users' templates in real children: what they write, and what hostile ones run into."""

import time
from typing import Any

import pytest

from media.load import MediaLoader
from media.template import ChatTemplateJob, TextsJob
from vlmq.chat_templates import MAX_RENDERED_CHARS
from vlmq.cutoff import Cutoff
from vlmq.errors import ErrorCode, VlmqError
from vlmq.template_environment import make_environment

CHAT = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]


def render(loader: MediaLoader, source: str, *, continues: bool = False, **variables: Any) -> str:
    job = ChatTemplateJob(source, CHAT, variables, continues)
    (text,) = loader.templates.render(job, param="chat_template")
    return text


def refusal(loader: MediaLoader, source: str) -> VlmqError:
    with pytest.raises(VlmqError) as caught:
        render(loader, source)
    assert caught.value.param == "chat_template"
    return caught.value


def test_a_chat_template_is_rendered_with_its_variables(loader: MediaLoader) -> None:
    source = "{% for m in messages %}{{ m.role }}: {{ m.content[0].text }} {{ mood }}{% endfor %}"
    assert render(loader, source, mood="ä😀") == "user: hello ä😀"


def test_several_texts_share_their_variables(loader: MediaLoader) -> None:
    job = TextsJob(["{{ a }}", "{% if a > 1 %}many{% endif %}"], {"a": 2})
    assert loader.templates.render(job, param="template") == ["2", "many"]


def test_the_last_message_is_left_open(loader: MediaLoader) -> None:
    source = "{% for m in messages %}<{{ m.content[0].text }}>{% endfor %}"
    assert render(loader, source) == "<hello>"
    assert render(loader, source, continues=True) == "<hello"


ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ '' }}{% endfor %}{% endfor %}",
    "{{ 9**(9**9) }}",
    "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{{ 'x' * 10**10 }}",
    "{{ ('x' * 10**8) | list | string }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ [0] * 10**9 }}",
    "{{ range(1000000) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ range(99999) | map('string') | join(messages | string * 999) | wordwrap(1) | length }}",
    "{{ strftime_now('%999999999d') }}{{ 'x' * 10**9 }}",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_a_template_without_measure_is_ended_within_three_seconds(source: str, loader: MediaLoader) -> None:
    render(loader, "warm")  # the first child may still be on its way
    began = time.monotonic()
    assert refusal(loader, source).code is ErrorCode.TEMPLATE_LIMIT
    assert time.monotonic() - began < 3
    assert render(loader, "{{ messages[0].role }}") == "user"


FORBIDDEN = [
    "{{ messages.__class__.__mro__ }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ messages | attr('__class__') }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ ''['__cl' ~ 'ass__'].x }}",
    "{{ [''] | map(attribute='__class__') | map(attribute='__mro__') | list }}",
    "{{ '{0.__class__.x}'.format('') }}",
    "{{ messages.append(1) }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ namespace(__init__=1) }}",
    "{% include 'x' %}",
]


@pytest.mark.parametrize("source", FORBIDDEN)
def test_a_template_reaches_nothing_behind_its_values(source: str, loader: MediaLoader) -> None:
    error = refusal(loader, source)
    assert error.code is ErrorCode.TEMPLATE_FORBIDDEN, error.message
    assert "object at" not in error.message and "/" not in error.message


BROKEN = [
    ("{% for m in messages %}{{ m.content }", "line 1"),
    ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"),
    ("{{ messages[7].content }}", "no element 7"),
    ("{{ 1 + 'a' }}", "TypeError"),
    ("{{ messages | nothing }}", "nothing"),
    ("{{ '\\ud800' }}", "surrogate"),
    ("{{ '\\x00' }}", "NUL"),
    ("{% for a in b %}" * 25 + "{% endfor %}" * 25, "SyntaxError"),
]


@pytest.mark.parametrize(("source", "words"), BROKEN)
def test_a_broken_template_says_what_is_wrong(source: str, words: str, loader: MediaLoader) -> None:
    error = refusal(loader, source)
    assert error.code is ErrorCode.TEMPLATE_ERROR
    assert words in error.message


@pytest.mark.parametrize(
    ("message", "shown"),
    [("'\\ud800 half'", "\ufffd half"), ("'a\\x00b'", "a\ufffdb"), ("raise_exception", "<function _raise_exception>")],
)
def test_what_a_template_raises_is_shown_as_text_that_can_be_kept(
    message: str, shown: str, loader: MediaLoader
) -> None:
    error = refusal(loader, f"{{{{ raise_exception({message}) }}}}")
    assert (error.code, error.message) == (ErrorCode.TEMPLATE_ERROR, f"The template refused: {shown}")


@pytest.mark.parametrize(
    "value",
    [
        "raise_exception", "messages[0].role.upper", "messages | map(attribute='role')", "cycler('a')", "dict",
        "[lipsum]", "dict(a=[strftime_now])", "namespace(a=1)", "messages[0].items",
    ],
)  # fmt: skip
def test_a_template_that_prints_a_function_is_refused(value: str, loader: MediaLoader) -> None:
    error = refusal(loader, f"{{{{ {value} }}}}")
    assert error.code is ErrorCode.TEMPLATE_ERROR
    assert error.message.startswith("The template prints a function or something else that is no text")


def test_whatever_json_can_say_is_printed_as_transformers_prints_it(loader: MediaLoader) -> None:
    source = "{{ [1, 2.5, true, none, 'a', {'b': (1,)}] }} {{ nothing }} {{ nothing | list }} {{ {'k': 1}.keys() }}"
    assert render(loader, source) == "[1, 2.5, True, None, 'a', {'b': (1,)}]  [] dict_keys(['k'])"
    assert render(loader, "{{ range(3) }} {{ messages[0].content }}") == f"range(0, 3) {CHAT[0]['content']}"
    assert render(loader, "{{ a }}", a="<function f at 0x7f00>") == "<function f at 0x7f00>"


@pytest.mark.parametrize("name", sorted(make_environment().filters.keys() - {"attr"}))
def test_whatever_a_filter_loads_late_is_there(name: str, loader: MediaLoader) -> None:
    try:
        render(loader, f"{{{{ '<a>b &amp; c</a>' | {name} }}}}")
    except VlmqError as error:
        # It may want another value, or an argument.
        assert error.code is ErrorCode.TEMPLATE_ERROR, error.message


def test_filler_text_is_written(loader: MediaLoader) -> None:
    assert len(render(loader, "{{ lipsum(n=2) }}")) > 100


def test_a_variable_may_have_any_name(loader: MediaLoader) -> None:
    job = TextsJob(["{{ args }} {{ kwargs }}"], {"self": 1, "args": 2, "kwargs": 3})
    assert loader.templates.render(job, param="template") == ["2 3"]


def test_a_template_that_makes_python_load_something_is_refused_and_not_tried_again(loader: MediaLoader) -> None:
    error = refusal(loader, "{{ 'example'.encode('idna') }}")
    assert error.code is ErrorCode.TEMPLATE_FORBIDDEN
    assert not error.retryable


def test_a_long_text_is_written_up_to_its_limit(loader: MediaLoader) -> None:
    assert len(render(loader, f"{{{{ '😀' * {MAX_RENDERED_CHARS} }}}}")) == MAX_RENDERED_CHARS
    assert refusal(loader, f"{{{{ 'x' * {MAX_RENDERED_CHARS + 1} }}}}").code is ErrorCode.TEMPLATE_LIMIT


def test_a_cutoff_ends_rendering(loader: MediaLoader) -> None:
    cutoff = Cutoff()
    cutoff.cut()
    with pytest.raises(VlmqError) as caught:
        loader.templates.render(TextsJob(["x"], {}), param="template", cutoff=cutoff)
    assert caught.value.code is ErrorCode.UNAVAILABLE
