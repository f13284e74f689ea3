"""Calls of tools in texts, in the forms that chat templates write them."""

from __future__ import annotations

import json

import pytest

from sysml_run.worker.toolcalls import calls

CALL = {"name": "look", "arguments": {"pid": 7, "deep": True}}
SAME = [json.dumps({"arguments": {"deep": True, "pid": 7}, "name": "look"})]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "look", "arguments": {"pid": 7, "deep": true}}\n</tool_call>',
        'I look it up. {"name": "look", "parameters": {"deep": true, "pid": 7}}',
        '[TOOL_CALLS] [{"name": "look", "arguments": {"pid": 7, "deep": true}, "id": "a1"}]',
        '[TOOL_CALLS]look[ARGS]{"pid": 7, "deep": true}',
        'look{"pid": 7, "deep": true}',
        json.dumps({"tool_calls": [{"function": {**CALL, "arguments": json.dumps(CALL["arguments"])}}]}),
        '{broken {"name": "look", "arguments": {"pid": 7, "deep": true}}',
    ],
)  # fmt: skip
def test_forms_of_one_call(text: str) -> None:
    assert calls(text) == SAME


def test_several_calls_keep_their_order() -> None:
    text = '{"name": "b", "arguments": {}} and {"name": "a", "arguments": "not JSON"}'
    assert [json.loads(call)["name"] for call in calls(text)] == ["b", "a"]
    assert json.loads(calls(text)[1])["arguments"] == "not JSON"


@pytest.mark.parametrize(
    "text",
    ["", "no call", '{"severity": "high"}', '{"name": "x"}', "[1, 2]", "{", "[" * 100_000, '"a"',
     f'{{"name": "x", "arguments": "{"[" * 100_000}"}}'],
)  # fmt: skip
def test_what_is_no_call(text: str) -> None:
    assert calls(text) == []
