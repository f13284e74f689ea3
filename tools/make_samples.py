"""Write the sample rows of runner/sysml_run/samples, most from the example findings: `python tools/make_samples.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "runner" / "sysml_run" / "samples"
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tools")]

from make_findings import Finding, findings  # noqa: E402
from sample_contracts import contracts  # noqa: E402

FINDINGS, ROWS, JOINED = 64, 32, 3
SYSTEM = "You are a local security analyst. Answer in JSON."
INSTRUCTION = "Assess this finding."
LOOK_UP = {
    "name": "check_process_details",
    "description": "Look up a process by its title.",
    "parameters": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
}
META = {"json_schema_version": "2", "tool_version": "5.0.0", "arch": "x86_64", "kernel": "6.1.0", "os_id": "debian"}


def samples() -> dict[str, str]:
    """The text of each sample file, by file name."""
    chosen = spread(findings(), FINDINGS)
    asked = chosen[:ROWS]
    return {
        "sysscan.finding.jsonl": lines(chosen),
        "sysscan.correlation.jsonl": lines(batch(chosen[at : at + JOINED], at) for at in range(0, ROWS, 2)),
        "sysscan.report.jsonl": lines(report(item) for item in asked),
        "sysscan.document.jsonl": lines(document(item) for item in asked),
        "alpaca.jsonl": lines(instruction(item) for item in asked),
        "sharegpt.jsonl": lines({"conversations": tagged(item)} for item in asked),
        "messages.jsonl": lines({"messages": messages(item)} for item in asked),
        "prompt_completion.jsonl": lines({"prompt": prompt(item), "completion": answer(item)} for item in asked),
        "text.jsonl": lines({"text": f"{item['title']}: {item['description']} {item['rationale']}"} for item in asked),
        "tools.jsonl": lines({"messages": called(item), "tools": json.dumps([LOOK_UP])} for item in asked),
        "preference.jsonl": lines(pair(item) for item in asked),
        "contracts.jsonl": lines(contracts()),
    }


def spread(made: list[Finding], count: int) -> list[Finding]:
    """`count` findings that take every category and severity in turn, in the order they were made."""
    turn: dict[tuple[str, str], int] = {}
    keys = []
    for place, item in enumerate(made):
        pair = item["category"], item["severity"]
        turn[pair] = turn.get(pair, 0) + 1
        keys.append((turn[pair], place))
    return [made[place] for place in sorted(place for _, place in sorted(keys)[:count])]


def prompt(item: Finding) -> str:
    return "Assess this finding:\n" + seen(item)


def seen(item: Finding) -> str:
    """What the scanner saw, as compact JSON; nothing that tells the answer."""
    return compact({key: item[key] for key in ("title", "description", "category", "metadata")})


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def answer(item: Finding) -> str:
    return compact({"severity": item["severity"], "risk_score": item["risk_total"]})


def messages(item: Finding) -> list[dict[str, str]]:
    """The same question and answer as a conversation of three turns."""
    turns = (("system", SYSTEM), ("user", prompt(item)), ("assistant", answer(item)))
    return [{"role": role, "content": content} for role, content in turns]


def instruction(item: Finding) -> dict[str, str]:
    return {"instruction": INSTRUCTION, "input": seen(item), "output": answer(item)}


def tagged(item: Finding) -> list[dict[str, str]]:
    tags = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": tags[turn["role"]], "value": turn["content"]} for turn in messages(item)]


def called(item: Finding) -> list[dict[str, Any]]:
    """A question that is answered with the call of a tool."""
    call = {"type": "function", "function": {"name": LOOK_UP["name"], "arguments": compact({"title": item["title"]})}}
    asked = {"role": "user", "content": f"Which process is behind this? {item['description']}"}
    return [asked, {"role": "assistant", "content": "", "tool_calls": [call]}]


def pair(item: Finding) -> dict[str, str]:
    """The answer, and one that is wrong."""
    wrong = compact({"severity": "unknown", "risk_score": 0})
    return {"prompt": prompt(item), "chosen": answer(item), "rejected": wrong}


def batch(parts: list[Finding], number: int) -> dict[str, Any]:
    """A few findings and the correlation of all of them, as risky as the riskiest."""
    worst = max(parts, key=lambda item: int(item["risk_total"]))
    correlation = {
        "id": f"corr_sample_{number:08x}",
        "title": f"{len(parts)} findings on one host",
        "description": f"{parts[0]['title']} together with {parts[-1]['title']}",
        "severity": worst["severity"],
        "risk_score": worst["risk_score"],
        "category": "correlation",
        "correlation_type": "sample",
        "correlation_refs": [item["id"] for item in parts],
        "metadata": {"correlation_reason": "sample"},
    }
    return {"findings": parts, "correlations": [correlation]}


def report(item: Finding) -> dict[str, Any]:
    """A scanner's report with one finding, its score as text, as real ones have it."""
    kept = {key: item[key] for key in ("id", "title", "severity", "description", "metadata")}
    found = kept | {"base_severity_score": str(item["base_severity_score"])}
    return {"meta": META, "results": [{"scanner": item["category"], "finding_count": 1, "findings": [found]}]}


def document(item: Finding) -> dict[str, Any]:
    kept = {key: item[key] for key in ("title", "description")}
    return kept | {"content": compact(item["metadata"]), "findings": [item["rationale"]]}


def lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Write every sample file."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in samples().items():
        (TARGET / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
