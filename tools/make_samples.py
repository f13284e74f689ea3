"""Write the small sample rows of runner/sysml_run/samples from the example findings: `python tools/make_samples.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "runner" / "sysml_run" / "samples"
sys.path.insert(0, str(ROOT / "examples"))

from make_findings import Finding, findings  # noqa: E402

FINDINGS, ROWS = 64, 32
SYSTEM = "You are a local security analyst. Answer in JSON."


def samples() -> dict[str, str]:
    """The text of each sample file, by file name."""
    chosen = spread(findings(), FINDINGS)
    asked = chosen[:ROWS]
    return {
        "sysscan.finding.jsonl": lines(chosen),
        "prompt_completion.jsonl": lines({"prompt": prompt(item), "completion": answer(item)} for item in asked),
        "messages.jsonl": lines({"messages": messages(item)} for item in asked),
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
    """What the scanner saw, as compact JSON; nothing that tells the answer."""
    seen = {key: item[key] for key in ("title", "description", "category", "metadata")}
    return "Assess this finding:\n" + json.dumps(seen, separators=(",", ":"))


def answer(item: Finding) -> str:
    return json.dumps({"severity": item["severity"], "risk_score": item["risk_total"]}, separators=(",", ":"))


def messages(item: Finding) -> list[dict[str, str]]:
    """The same question and answer as a conversation of three turns."""
    turns = (("system", SYSTEM), ("user", prompt(item)), ("assistant", answer(item)))
    return [{"role": role, "content": content} for role, content in turns]


def lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Write every sample file."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in samples().items():
        (TARGET / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
