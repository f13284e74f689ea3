"""Ollama's Modelfile beside a GGUF: the prompt, the end of an answer and the length that training had.

https://docs.ollama.com/modelfile; its templates are Go's, so ours is cut from what the chat template makes of markers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .data.begin import begins

SYSTEM, USER, ANSWER = "the-system-text", "the-user-text", "the-answer-text"


@dataclass(frozen=True)
class Turn:
    """What stands around the words of one exchange; `system` is before and behind those of the system."""

    system: tuple[str, str] | None
    before: str
    behind: str
    end: str

    @property
    def go(self) -> str:
        """As Go's template; without words for the system nothing of its frame is written."""
        prompt = f"{{{{ .Prompt }}}}{self.behind}{{{{ .Response }}}}{self.end}"
        if self.system is None:
            return self.before + prompt
        first, then = self.system
        return f"{{{{ if .System }}}}{first}{{{{ .System }}}}{then}{{{{ else }}}}{self.before}{{{{ end }}}}{prompt}"


def make(tokenizer: Any, gguf: str, length: int, ends: Sequence[str], system: str | None) -> str:
    """The file's text; without TEMPLATE, where the chat template cannot be cut, Ollama goes by the GGUF's own."""
    lines = [f"FROM ./{gguf}"]
    found = turn(tokenizer)
    if dated(tokenizer):
        lines.append("# No TEMPLATE: the chat template writes the day's date, which would stay that of the packing.")
    elif found is not None:
        lines.append(f'TEMPLATE """{found.go}"""')
    if system is not None and '"""' in system:
        lines.append('# No SYSTEM: the words have """, which this file cannot hold; send them with each request.')
    elif system is not None:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f"PARAMETER num_ctx {length}", "PARAMETER temperature 0"]
    plain = [end for end in ends if '"' not in end and "\n" not in end]
    lines += [f'PARAMETER stop "{end}"' for end in plain]
    if len(plain) < len(ends):
        lines.append('# No PARAMETER stop for ends of answers with " or a line break, which this file cannot hold.')
    return "\n".join(lines) + "\n"


def dated(tokenizer: Any) -> bool:
    """Whether the chat template writes the date of the day it is used on."""
    return "strftime_now" in str(tokenizer.chat_template)


def turn(tokenizer: Any) -> Turn | None:
    """What the chat template writes around the words; None where it changes them or cannot be cut."""
    plain = _rendered(tokenizer, None)
    whole = _rendered(tokenizer, SYSTEM)
    if plain is None:
        return None
    begin = str(tokenizer.bos_token) if begins(tokenizer) and tokenizer.bos_token else ""
    before, _, rest = plain[0].partition(USER)
    behind, end = rest, plain[1].partition(ANSWER)[2]
    system = None
    if whole is not None and whole[0].count(SYSTEM) == 1 and whole[0].endswith(USER + behind):
        first, _, then = whole[0].removesuffix(USER + behind).partition(SYSTEM)
        system = (first.removeprefix(begin), then)
    found = Turn(system, before.removeprefix(begin), behind, end)
    literal = [*(found.system or ()), found.before, found.behind, found.end]
    return None if any("{{" in text or '"""' in text for text in literal) else found


def _rendered(tokenizer: Any, system: str | None) -> tuple[str, str] | None:
    """A question ready to be answered, and the answered one; None where the template refuses or has not the words."""
    first = [{"role": "system", "content": system}] if system else []
    asked = [*first, {"role": "user", "content": USER}]
    try:
        open_ = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        closed = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": ANSWER}], tokenize=False)
    except Exception:  # a template may raise anything
        return None
    return (open_, closed) if open_.count(USER) == 1 and closed.count(ANSWER) == 1 else None
