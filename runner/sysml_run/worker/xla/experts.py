"""Mixture-of-experts layers whose shapes do not depend on what the router chooses: every expert sees every token.

The published forwards sort tokens by expert, and XLA compiles a program for every count. These cost as many times the
arithmetic as there are experts for each one that a token is sent to.
"""

from __future__ import annotations

from typing import Any

LIMIT = 2**28  # numbers that one device may hold of a layer's hidden activations in one product

FUSED, LOOPED = "static_fused", "static_looped"


def choose(tokens: int, config: Any) -> str | None:
    """The forward for so many tokens on one device; None for a model without experts.

    One product over all experts compiles soonest; a loop over them holds the activations of one at a time.
    """
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if not experts:
        return None
    inner = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    return FUSED if tokens * int(experts) * 2 * int(inner) <= LIMIT else LOOPED


def register() -> None:
    """Make both known to transformers by name."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(FUSED, fused)
    ALL_EXPERTS_FUNCTIONS.register(LOOPED, looped)


def fused(self: Any, hidden: Any, chosen: Any, weights: Any) -> Any:
    """`hidden` (tokens, d); `chosen` and `weights` (tokens, experts a token) by the router. Gives (tokens, d)."""
    import torch

    share = _shares(self, hidden, chosen, weights)
    inner = self._apply_gate(torch.einsum("td,eod->eto", hidden, self.gate_up_proj))
    each = torch.einsum("eti,edi->etd", inner, self.down_proj)
    return torch.einsum("etd,te->td", each, share.to(each.dtype)).to(hidden.dtype)


def looped(self: Any, hidden: Any, chosen: Any, weights: Any) -> Any:
    """The same, one expert after the other."""
    import torch

    share, total = _shares(self, hidden, chosen, weights), torch.zeros_like(hidden)
    for expert in range(self.num_experts):
        inner = self._apply_gate(torch.nn.functional.linear(hidden, self.gate_up_proj[expert]))
        each = torch.nn.functional.linear(inner, self.down_proj[expert])
        total = total + (each * share[:, expert : expert + 1]).to(total.dtype)
    return total


def _shares(self: Any, hidden: Any, chosen: Any, weights: Any) -> Any:
    """What each expert's answer counts for each token, (tokens, experts): 0 where it was not chosen."""
    import torch

    empty = torch.zeros(hidden.shape[0], self.num_experts, dtype=weights.dtype, device=hidden.device)
    return empty.scatter_add(1, chosen, weights)
