"""Templates compiled once, against `apply_chat_template`; what they are given, and what they cannot write."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysml_run.errors import DataError
from sysml_run.worker.data import named
from sysml_run.worker.data.chat import Chat
from sysml_run.worker.data.render import RefusedError, Renderer

from . import small_tokenizers as small

KNOWS_TOOLS = """
{%- if tools %}<tools>{{ tools | tojson(indent=1) }}</tools>
{% endif %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
<|im_start|>assistant
{% generation %}{{ m.content }}{% for c in m.tool_calls or []
%}<call>{{ c.function.name }}{{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>
{% endgeneration %}
    {%- else %}
<|im_start|>{{ m['role'] }}{% if m.name is defined %}={{ m.name }}{% endif %}

{{ m.content | trim }}{{ ' (' + m.reasoning_content + ')' if m.reasoning_content }}<|im_end|>
    {%- endif %}
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
TOOL = {"type": "function", "function": {"name": "get_hash", "description": "d", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "get_hash", "arguments": '{"path": "/é"}'}}


@pytest.fixture(scope="module")
def knowing() -> Any:
    """A tokenizer whose template knows tools."""
    made = small.byte_level(small.CHATML, "<|im_end|>", begins=False)
    made.chat_template = KNOWS_TOOLS
    return made


TEXT = st.text(max_size=20)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "tool"]), "content": TEXT},
    optional={"name": TEXT | st.none(), "reasoning": TEXT, "thinking": st.none()},
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGE, min_size=1, max_size=4), answer=TEXT, generation=st.booleans(), tools=st.booleans())
def test_the_text_is_that_of_transformers(
    knowing: Any, messages: list[dict[str, Any]], answer: str, generation: bool, tools: bool
) -> None:
    given = [*messages, {"role": "assistant", "content": answer, "tool_calls": [CALL] if tools else None}]
    objects = [*messages, {"role": "assistant", "content": answer, **({"tool_calls": [as_object()]} if tools else {})}]
    wanted = knowing.apply_chat_template(
        objects, tools=[TOOL] if tools else None, tokenize=False, add_generation_prompt=generation
    )
    front = [{"role": "tools", "tools": [TOOL]}] if tools else []
    for template in ("tokenizer", KNOWS_TOOLS):
        chat = Chat(knowing, template)
        turns, found = chat.shaped([*front, *given])
        assert found == ([TOOL] if tools else None)
        assert chat.rendered(turns, found, generation=generation) == wanted


def as_object() -> dict[str, Any]:
    """The call as templates expect it."""
    return {**CALL, "function": {**CALL["function"], "arguments": json.loads(CALL["function"]["arguments"])}}


def test_a_tokenizer_with_a_template_for_tools(knowing: Any) -> None:
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    both = small.byte_level(small.CHATML, "<|im_end|>", begins=False)
    both.chat_template = {"default": plain, "tool_use": KNOWS_TOOLS}
    chat = Chat(both, "tokenizer")
    messages = [{"role": "user", "content": "x"}]
    assert chat.rendered(messages, None) == "x"
    assert chat.rendered(messages, [TOOL]) == both.apply_chat_template(messages, tools=[TOOL], tokenize=False)
    assert chat.text == plain


def test_answers_that_are_calls_alone(knowing: Any) -> None:
    messages = [
        {"role": "tools", "tools": [TOOL]},
        {"role": "user", "content": "hash it"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
    ]
    rendered = Renderer(knowing, "tokenizer", "completion")(messages, "a:0")
    span = rendered.answers[0]
    assert rendered.text[span.start : span.end] == '<call>get_hash{"path": "/é"}</call><|im_end|>'
    assert "get_hash" in span.content


@pytest.mark.parametrize("front", [[], [{"role": "tools", "tools": [TOOL]}]])
def test_a_template_that_leaves_tools_unsaid(tokenizer: Any, front: list[dict[str, Any]]) -> None:
    asked = {"role": "user", "content": "hash it"}
    answer = (
        {"role": "assistant", "content": "ok"} if front else {"role": "assistant", "content": "", "tool_calls": [CALL]}
    )
    with pytest.raises(RefusedError, match=r"does not write out tools and their calls \(get_hash\)"):
        Renderer(tokenizer, "tokenizer", "completion")([*front, asked, answer], "a:0")


def test_calls_beside_a_list_of_tools_are_looked_for(knowing: Any) -> None:
    """That the name stands in the list of tools does not do for the call."""
    listing = "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}"
    messages = [
        {"role": "tools", "tools": [TOOL]},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
    ]
    with pytest.raises(RefusedError, match="does not write out"):
        Renderer(knowing, listing, "completion")(messages, "a:0")


@pytest.mark.parametrize("call", [{}, {"function": {"name": "f"}}, {"function": {"arguments": "{"}}, "f()", None])
def test_calls_that_are_none(knowing: Any, call: Any) -> None:
    with pytest.raises(RefusedError, match=r"a tool call needs function\.name and arguments"):
        Chat(knowing, "tokenizer").shaped([{"role": "assistant", "content": "", "tool_calls": [call]}])


def test_templates_that_are_none(knowing: Any) -> None:
    with pytest.raises(DataError, match=r"prompt\.template: Expected an expression"):
        Chat(knowing, "{% for m in %}")
    with pytest.raises(DataError, match="neither a name nor the text") as caught:
        Chat(knowing, "vicuna")
    assert "alpaca, chatml, llama3, mistral, none" in str(caught.value.hint)
    bare = small.byte_level(small.CHATML, "<|im_end|>", begins=False)
    with pytest.raises(DataError, match="no chat template of its own"):
        Chat(bare, "tokenizer")
    for template, name in {"tokenizer": "tokenizer", "chatml": "chatml", "{{ 1 }}": "inline"}.items():
        assert Chat(knowing, template).name == named.title(template, Path()) == name


@pytest.mark.parametrize(
    "word", ["{{ 1 // 0 }}", "{{ 2.0 ** 5000 }}", "{{ 'a' + 1 }}", "{{ ''.x.y }}", "{{ [][1].x }}"]
)
def test_whatever_a_template_raises_is_a_refusal(knowing: Any, word: str) -> None:
    for template in (
        word,
        "{% for m in messages %}" + word + "{% endfor %}",
        "{% for m in messages %}{% endfor %}" + word,
    ):
        with pytest.raises(RefusedError):
            Chat(knowing, template).rendered([{"role": "user", "content": "x"}], None)
