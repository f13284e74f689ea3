"""Chat templates that write message after message: rendered once, and cut where each message begins.

What such a template has written before a message cannot depend on it or on any later one, so that the prompt of an
answer is the text up to the answer and what is asked with `add_generation_prompt`. Only a template of which its syntax
tree proves that counts: plain nodes, one loop over `messages`, which nothing else looks ahead in.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MARK = "\x1f\x00"  # ASCII, as most rows are, and no end of it begins it; what has it is rendered the other way
FLAG, MESSAGES, LOOP = "add_generation_prompt", "messages", "loop"
BEHIND = ("first", "index", "index0", "previtem")  # what a loop knows without looking ahead
CALLS = {"raise_exception", "namespace"}  # all that is used of what every template has at hand: others tell the time
RAISED = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)  # and TemplateError
NODES = [
    "Add",
    "And",
    "Assign",
    "Call",
    "Compare",
    "Concat",
    "CondExpr",
    "Const",
    "Dict",
    "Div",
    "Filter",
    "FloorDiv",
    "For",
    "Getattr",
    "Getitem",
    "If",
    "Keyword",
    "List",
    "Mod",
    "Mul",
    "NSRef",
    "Name",
    "Neg",
    "Not",
    "Operand",
    "Or",
    "Output",
    "Pair",
    "Slice",
    "Sub",
    "TemplateData",
    "Test",
    "Tuple",
]


@dataclass(frozen=True)
class Turns:
    """`parts` are the text before the first message and that of each message; `asks` and `ends` follow the last."""

    parts: list[str]
    asks: str
    ends: str

    def text(self, count: int, *, generation: bool = False) -> str:
        """What the template makes of the first `count` messages, of which there is at least one."""
        return "".join(self.parts[: count + 1]) + (self.asks if generation else self.ends)


class Turnwise:
    """`template` marks where a message begins."""

    def __init__(self, template: Any, asks: str, ends: str) -> None:
        self.template, self.asks, self.ends = template, asks, ends

    def __call__(self, given: Mapping[str, Any]) -> Turns | None:
        """The turns of the conversation; None for one that has the mark. Raises what templates raise."""
        parts = self.template.render(given).split(MARK)
        return Turns(parts, self.asks, self.ends) if len(parts) == len(given[MESSAGES]) + 1 else None


def turnwise(text: str, environment: Any, words: Mapping[str, Any]) -> Turnwise | None:
    """None where the syntax tree of the template's text does not prove that it writes message after message."""
    from jinja2 import TemplateError, nodes

    tree = environment.parse(text)
    loops = [at for at, node in enumerate(tree.body) if isinstance(node, nodes.For) and named(node.iter, MESSAGES)]
    if len(loops) != 1 or not (plain(tree, environment.globals) and causal(tree, loops[0], words)):
        return None
    loop, after = tree.body[loops[0]], tree.body[loops[0] + 1 :]
    loop.body.insert(0, nodes.Output([nodes.TemplateData(MARK)]))
    end = environment.from_string(nodes.Template(after, lineno=1).set_environment(environment))
    body = nodes.Template(tree.body[: loops[0] + 1], lineno=1).set_environment(environment)
    try:
        asks, ends = (end.render({**words, FLAG: flag}) for flag in (True, False))
    except (TemplateError, *RAISED):
        return None
    return Turnwise(environment.from_string(body), asks, ends)


def plain(tree: Any, at_hand: Container[str]) -> bool:
    """Whether all nodes are of kinds that do nothing but compute, and nothing is used that tells time or chance."""
    from jinja2 import nodes

    return all(
        type(node).__name__ in NODES
        and not (isinstance(node, nodes.Filter) and by_chance(node))
        and not (isinstance(node, nodes.Name) and node.name in at_hand and node.name not in CALLS)
        for node in inside(tree)
    )


def by_chance(node: Any) -> bool:
    """Whether the filter is `random`, or `map` with the name of another, which may be that."""
    return node.name == "random" or (node.name == "map" and bool(node.args or node.dyn_args))


def causal(tree: Any, at: int, words: Mapping[str, Any]) -> bool:
    """Whether what is written before a message ends is the same whatever follows; the loop is the node `at`."""
    from jinja2 import nodes

    loop, after = tree.body[at], nodes.Template(tree.body[at + 1 :], lineno=1)
    names = [node for node in inside(tree) if isinstance(node, nodes.Name)]
    stored = {node.name for node in names if node.ctx != "load"}
    ending = [node.name for node in inside(after) if isinstance(node, nodes.Name)]
    return (
        not (loop.test or loop.else_ or loop.recursive)
        and not stored & {FLAG, MESSAGES, LOOP, *words}
        and sum(node.name == MESSAGES for node in names) == 1 + sum(map(first_message, inside(tree)))
        and sum(node.name == LOOP for node in names) == sum(map(looks_behind, inside(tree)))
        and sum(node.name == FLAG for node in names) == ending.count(FLAG)
        and set(ending) <= {FLAG, *words}
    )


def inside(node: Any) -> Iterator[Any]:
    """All nodes below this one."""
    for child in node.iter_child_nodes():
        yield child
        yield from inside(child)


def named(node: Any, name: str) -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Name) and node.name == name


def first_message(node: Any) -> bool:
    """Whether the node is `messages[0]`: there are always one or more."""
    from jinja2 import nodes

    at_zero = isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == 0
    return at_zero and named(node.node, MESSAGES)


def looks_behind(node: Any) -> bool:
    """Whether the node is `loop.first` or another word of the past."""
    from jinja2 import nodes

    return isinstance(node, nodes.Getattr) and node.attr in BEHIND and named(node.node, LOOP)
