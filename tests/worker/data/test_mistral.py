"""The mistral template against Mistral's own encoder, token for token."""

import json
import re
import string
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from sysml_run.errors import DataError
from sysml_run.worker.data import mistral, named
from sysml_run.worker.data.labels import IGNORED, Labeller, Row
from sysml_run.worker.data.render import RefusedError, Renderer
from sysml_run.worker.data.tokens import Encoder

from . import fast_mistral

KINDS = ["v1 first", "v1 legacy", "v3 first", "v3 legacy", "v3 tekken", "v7 first", "v7 legacy"]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_file_hash",
            "description": "SHA-256 of a file, “quoted”",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        },
    },
    {"type": "function", "function": {"name": "list_processes", "description": "", "parameters": {}}},
]


class Oracle:
    """One published tokenizer: Mistral's encoder, ours, and the version of both."""

    def __init__(self, kind: str) -> None:
        version, self.spaces = kind.split()
        self.version = int(version[1:])
        if self.spaces == "tekken":
            path = fast_mistral.TEKKEN[self.version]
            words = [str(entry["token_str"]) for entry in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
            early = words[: words.index("[SYSTEM_PROMPT]")] if self.version == 3 else words
            self.tokenizer = fast_mistral.from_tekken(path, early)
        else:
            pytest.importorskip("sentencepiece", reason="reads Mistral's SentencePiece models")
            path = fast_mistral.SENTENCEPIECE[self.version]
            self.tokenizer = fast_mistral.from_sentencepiece(path, self.spaces)
        self.learning, self.asking = (
            MistralTokenizer.from_file(str(path), mode=mode)
            for mode in (ValidationMode.finetuning, ValidationMode.test)
        )
        self.encoder = Encoder(self.tokenizer)
        self.renderers = {how: Renderer(self.tokenizer, "mistral", how) for how in ("completion", "assistant")}

    def wanted(self, messages: list[dict[str, Any]], *, asking: bool = False) -> list[int]:
        tools = messages[0]["tools"] if messages[0]["role"] == "tools" else None
        said = [as_mistral(message) for message in messages if message["role"] != "tools"]
        encoder = self.asking if asking else self.learning
        request = ChatCompletionRequest.from_openai(said, tools=tools)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(encoder.encode_chat_completion(request).tokens)

    def row(self, messages: list[dict[str, Any]], train_on: str = "completion") -> Row:
        rendered = self.renderers[train_on](messages, "a:0")
        return Labeller(self.encoder, train_on)(rendered, self.encoder([rendered])[0], "a:0")

    def answer(self, content: str) -> str:
        """An answer as it comes back from its tokens: SentencePiece has one character for a space and its own mark."""
        kept = content if self.version == 1 else content.rstrip(" ")
        return (kept if self.spaces == "tekken" else kept.replace("\u2581", " ")) + "</s>"

    def learned(self, row: Row) -> str:
        return str(self.tokenizer.decode([token for token in row.labels if token != IGNORED]))


def as_mistral(message: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's form: arguments are JSON text."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {"role": "assistant", "tool_calls": calls} | ({"content": message["content"]} if message["content"] else {})


@pytest.fixture(scope="module", params=KINDS)
def oracle(request: pytest.FixtureRequest) -> Oracle:
    return Oracle(request.param)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"]), min_size=1, max_size=30) | st.sampled_from(
    [" x", "  two", "x ", "a\n\nb", "\n", "{}", "🦀 crab", "中文", "e\u0301", "\ttab", "]", "[/", "1 2  3", "\u2581x"]
)
CONTROL = re.compile(r"</?s>|\[/?[A-Z_]{3,}\]")  # which the tokenizer reads as such wherever they stand
TEXT = TEXT.filter(lambda text: CONTROL.search(text) is None)
SAID = TEXT.filter(lambda text: text.strip(" ") != "")
ID = st.text(string.ascii_letters + string.digits, min_size=9, max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 10**12) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
RESULT = VALUES.map(json.dumps) | TEXT.filter(lambda text: text.strip() != "")


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """An optional system message, then questions and answers."""
    system = [turn("system", draw(SAID))] if draw(st.booleans()) else []
    pairs = draw(st.lists(st.tuples(SAID, SAID), min_size=1, max_size=3))
    return [*system, *(each for a, b in pairs for each in (turn("user", a), turn("assistant", b)))]


def called(name: str, arguments: Any, id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


@st.composite
def with_tools(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation in which tools are called, once or twice, before the last answer or as the last answer."""
    turns = [{"role": "tools", "tools": TOOLS[: draw(st.integers(1, 2))]}, *draw(conversations())]
    ids = draw(st.lists(ID, min_size=1, max_size=2, unique=True))
    calls = [called("get_file_hash", draw(st.dictionaries(TEXT, VALUES, max_size=2)), id) for id in ids]
    turns += [turn("user", draw(SAID)), turn("assistant", "", tool_calls=calls)]
    if draw(st.booleans()):
        turns += [turn("tool", draw(RESULT), tool_call_id=id, name="get_file_hash") for id in ids]
        turns += [turn("assistant", draw(SAID))]
    return turns


QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(conversations())
def test_random_conversations(oracle: Oracle, messages: list[dict[str, Any]]) -> None:
    row = oracle.row(messages)
    assert row.ids == oracle.wanted(messages)
    assert row.ids[: row.prompt_len] == oracle.wanted(messages[:-1], asking=True)
    assert oracle.learned(row) == oracle.answer(messages[-1]["content"])


@QUICK
@given(with_tools())
def test_random_calls_of_tools(oracle: Oracle, messages: list[dict[str, Any]]) -> None:
    if oracle.version == 1:
        with pytest.raises(RefusedError, match="has no tools"):
            oracle.row(messages)
        return
    row = oracle.row(messages)
    assert row.ids == oracle.wanted(messages)
    assert row.ids[: row.prompt_len] == oracle.wanted(messages[:-1], asking=True)
    learned = oracle.learned(row)
    assert learned.endswith("</s>")
    if messages[-1].get("tool_calls"):
        assert learned.startswith("[TOOL_CALLS]")


@QUICK
@given(conversations())
def test_every_answer_of_random_conversations(oracle: Oracle, messages: list[dict[str, Any]]) -> None:
    """The whole row is as without it, and each answer is learned with its end token, wherever the system message is."""
    row = oracle.row(messages, "assistant")
    assert row.ids == oracle.wanted(messages)
    answers = [oracle.answer(message["content"]) for message in messages if message["role"] == "assistant"]
    assert oracle.learned(row) == ("" if oracle.spaces == "tekken" else " ").join(answers)


def test_versions_are_told_by_special_tokens(oracle: Oracle, tmp_path: Path) -> None:
    assert mistral.version(oracle.tokenizer) == oracle.version
    name = Renderer(oracle.tokenizer, "mistral", "completion").chat.name
    assert name == f"mistral v{oracle.version}"
    oracle.tokenizer.save_pretrained(tmp_path)
    assert named.title("mistral", tmp_path) == name
    assert named.title("mistral", tmp_path / "absent") == "mistral"


def test_a_later_version_and_another_tokenizer_are_refused(oracle: Oracle, tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"has no </s> and would read") as caught:
        Renderer(tokenizer, "mistral", "completion")
    assert "template: tokenizer" in str(caught.value.hint)
    oracle.tokenizer.add_special_tokens({"additional_special_tokens": ["[ARGS]"]}, False)
    with pytest.raises(DataError, match=r"has \[ARGS\], of a later version than 7"):
        Renderer(oracle.tokenizer, "mistral", "completion")


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (["user", "user", "assistant"], "user cannot follow user"),
        (["assistant", "user", "assistant"], "assistant cannot follow nothing"),
        (["user", "assistant", "system", "user", "assistant"], "system cannot follow assistant"),
        (["user", "tool", "assistant"], "tool cannot follow user"),
        (["user", "judge", "assistant"], "judge cannot follow user"),
    ],
)
def test_an_order_it_does_not_know(tekken: Oracle, roles: list[str], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        tekken.row([turn(role, "x") for role in roles])


@pytest.fixture(scope="module")
def tekken() -> Oracle:
    return Oracle("v3 tekken")


def test_text_beside_calls_is_refused(tekken: Oracle) -> None:
    calls = [called("f", {}, "abcdefghi")]
    with pytest.raises(RefusedError, match="no turn with both text and tool calls"):
        tekken.row([turn("user", "x"), turn("assistant", "y", tool_calls=calls)])


def test_ids_that_mistral_would_refuse(tekken: Oracle) -> None:
    """Nine letters or digits stay; other ids and absent ones are made so that results still find their calls."""
    first, second = called("f", {}, "call_1"), called("g", {}, "abcdefghi")
    nameless = {"type": "function", "function": {"name": "h", "arguments": {}}}
    said = [
        *(turn("user", "x"), turn("assistant", "", tool_calls=[first, second, nameless])),
        *(turn("tool", "1", tool_call_id="abcdefghi"), turn("tool", "2", tool_call_id="call_1"), turn("tool", "3")),
        turn("assistant", "y"),
    ]
    found = mistral.shaped(said, 3)
    ids = [call["id"] for call in found[1]["tool_calls"]]
    assert ids[1] == "abcdefghi"
    assert all(mistral.ID.fullmatch(id) for id in ids)
    assert len(set(ids)) == 3
    assert [message["tool_call_id"] for message in found[2:5]] == [ids[1], ids[0], ids[2]]
    assert [message["content"] for message in found[2:5]] == [1, 2, 3]
    assert mistral.shaped(said, 7)[2]["content"] == "1"
    assert mistral.ID.fullmatch(mistral.shaped([turn("user", "x"), turn("tool", "1")], 3)[1]["tool_call_id"])


def test_the_file_itself(tekken: Oracle, tmp_path: Path) -> None:
    """What is published is a whole chat template: transformers makes the same text of it."""
    chat = Renderer(tekken.tokenizer, "mistral", "completion").chat
    messages = [turn("user", "x"), turn("assistant", "y")]
    text = tekken.tokenizer.apply_chat_template(messages, chat_template=chat.published(), tokenize=False)
    assert text == chat.rendered(messages, None) == "<s>[INST]x[/INST]y</s>"
