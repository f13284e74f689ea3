"""How much each input of a matrix counts: the mean of its squares over rows of text, as llama.cpp's imatrix has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysml_run.worker import gguf_files

from . import layout

FLOOR = 1e-6  # of a matrix's mean: a block in which nothing counts at all would be written as zeros
INTO, OUT_OF = ("w1", "w3"), ("w2",)  # an expert's matrices: what its tokens go into, and what leads back


@dataclass(frozen=True)
class Importance:
    """`means` by GGUF's names of tensors: float32 (columns), or (experts, columns)."""

    means: dict[str, Any]
    notes: list[str]


@dataclass
class Sum:
    """Squares (matrices, columns) summed in fp64, and the number of tokens (matrices, 1) they are of."""

    squares: Any
    tokens: Any


class Sums:
    """What arrives at each matrix, by the names that checkpoints have for its weights."""

    def __init__(self) -> None:
        self.found: dict[str, Sum] = {}

    def add(self, name: str, given: Any, at: int = 0, of: int = 1) -> None:
        """`given` (tokens, columns) goes into matrix number `at` of the `of` that are stacked."""
        import torch

        if name not in self.found:
            empty = torch.zeros(of, given.shape[-1], dtype=torch.float64)
            self.found[name] = Sum(empty, torch.zeros(of, 1, dtype=torch.float64))
        self.found[name].squares[at] += given.double().square().sum(0)
        self.found[name].tokens[at] += len(given)


def collect(folder: Path, rows: Sequence[Sequence[int]]) -> Importance:
    """Let the model in `folder` read `rows` of token ids, in fp32 on the processor. Raises StageError."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    gguf_files.refuse_missing(info, folder)
    sums = Sums()
    watch(model.eval(), sums)
    with torch.inference_mode():
        for row in rows:
            last = model.model(torch.tensor([row]), use_cache=False).last_hidden_state
            sums.add(layout.located("lm_head.weight")[0], last.flatten(0, 1))  # without the logits, which are large
    notes = [note for name, found in sums.found.items() for note in unreached(name, found)]
    return Importance({name: mean(found) for name, found in sums.found.items()}, notes)


def watch(model: Any, sums: Sums) -> None:
    """Add up what every linear layer is given; transformers holds the experts of a layer as one."""
    import torch

    for name, module in model.model.named_modules(prefix="model"):
        if isinstance(module, torch.nn.Linear):
            target, _ = layout.located(f"{name}.weight")
            module.register_forward_pre_hook(lambda _, given, at=target: sums.add(at, given[0].flatten(0, -2)))
        elif hasattr(module, "gate_up_proj") and hasattr(module, "num_experts"):
            layer = name.removesuffix(".mlp.experts")
            module.register_forward_pre_hook(lambda experts, given, at=layer: routed(experts, given, at, sums))


def routed(experts: Any, given: tuple[Any, ...], layer: str, sums: Sums) -> None:
    """Each expert is given the tokens that the router sends it; what it makes of them is computed here once more."""
    import torch

    tokens, chosen, *_ = given
    for number in range(experts.num_experts):
        into = tokens[(chosen == number).any(-1)]
        gate, up = torch.nn.functional.linear(into, experts.gate_up_proj[number]).chunk(2, dim=-1)
        for matrices, each in ((INTO, into), (OUT_OF, experts.act_fn(gate) * up)):
            for name in matrices:
                target, _ = layout.located(f"{layer}.block_sparse_moe.experts.{number}.{name}.weight")
                sums.add(target, each, number, experts.num_experts)


def mean(found: Sum) -> Any:
    """float32; of an expert that no token reached, the mean over all tokens of its layer."""
    import torch

    whole = found.squares.sum(0) / found.tokens.sum()
    means = torch.where(found.tokens > 0, found.squares / found.tokens.clamp(min=1), whole)
    floor = FLOOR * means.mean(-1, keepdim=True)
    return torch.where(floor > 0, means.maximum(floor), 1.0).float().numpy()


def unreached(name: str, found: Sum) -> Iterator[str]:
    """A sentence where no token reached some experts, one for the three matrices that each has."""
    count = int((found.tokens == 0).sum())
    if count and ".ffn_gate_exps." in name:
        layer = name.split(".")[1]
        yield f"no calibration token reached {count} experts of layer {layer}: the mean of its others counts for them"
