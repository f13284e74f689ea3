"""What one decoder layer keeps for its backward pass, and what that pass takes: bytes a token.

After Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4.1, counted
anew for gated feed-forwards, grouped keys, norms in fp32 and adapters as transformers and PEFT compute them.
"""

from __future__ import annotations

from .step import Step

LOG_SUM = 4  # bytes that flash attention keeps a head
FLOAT = 4


def kept(step: Step) -> float:
    """Without checkpointing: inputs of products, of norms and of gates, and what attention needs."""
    return _norms(step) + _inputs(step) + _attention(step) + _feed_forward(step)


def selected(step: Step) -> float:
    """Where attention and every other product are kept, and the rest is computed again (torchtitan's "op")."""
    found = step.model
    inner, shared = found.num_attention_heads * found.head_dim, found.num_key_value_heads * found.head_dim
    products = shared + inner + found.intermediate_size  # of q, k, v, o, gate, up and down the second, fourth and sixth
    return step.stream * found.hidden_size + step.width * (products + inner + found.hidden_size)


def passed(step: Step) -> float:
    """What layers hand to each other, all that is kept with full checkpointing."""
    return step.stream * step.model.hidden_size


def backward(step: Step) -> float:
    """Gradients that are there at once: what comes to a unit, what goes and what is between, or those of attention."""
    found = step.model
    times = max(found.num_experts_per_tok, 1)
    unit = 3 * times * _unit(step) * found.intermediate_size
    inner = found.num_attention_heads * found.head_dim
    around = (FLOAT + 3 * step.width) * inner
    if step.attention == "eager":
        around += 2 * FLOAT * found.num_attention_heads * step.attended
    return max(unit, around) + _widened(step) + 2 * step.stream * found.hidden_size


def _widened(step: Step) -> float:
    """The fp32 gradient of the widest input that an adapter took, before and after dropout."""
    found = step.model
    if not step.widened or not step.held:
        return 0
    return 2 * FLOAT * (found.intermediate_size if "down_proj" in step.held else found.hidden_size)


def _norms(step: Step) -> float:
    """Two norms compute in fp32, which is a copy, and where they are trained keep what they have normed."""
    if step.fused:
        return 2 * step.stream * step.model.hidden_size
    return 2 * (FLOAT + (step.stream if step.trained else 0)) * step.model.hidden_size


def _inputs(step: Step) -> float:
    """Inputs that products keep for their weights' gradients; `qkv` and `unit` are inputs that several share."""
    found, held = step.model, step.held
    inner = found.num_attention_heads * found.head_dim
    times = max(found.num_experts_per_tok, 1)
    total = found.hidden_size * sum(held.get(name, 0) for name in ("q_proj", "k_proj", "v_proj", "qkv", "gate"))
    total += inner * held.get("o_proj", 0)
    total += times * found.hidden_size * sum(held.get(name, 0) for name in ("gate_proj", "up_proj", "unit"))
    return total + times * found.intermediate_size * held.get("down_proj", 0)


def _attention(step: Step) -> float:
    """q, k, v and the result; eager attention keeps a matrix of length x length for each head.

    Beside a mask torch's fused attention takes no groups, and transformers repeats keys and values for every head; each
    layer turns truth values of the mask into numbers.
    """
    found = step.model
    inner, shared = found.num_attention_heads * found.head_dim, found.num_key_value_heads * found.head_dim
    heads = found.num_attention_heads
    if step.attention == "eager":
        square = (FLOAT + step.width) if step.width < FLOAT else FLOAT
        square += (1 + step.width) if step.dropout else 0
        return heads * step.attended * square + step.width * 3 * inner  # the result where a product keeps it
    if step.attention == "masked":
        return step.width * (4 * inner + step.attended) + LOG_SUM * heads
    return step.width * 2 * (inner + shared) + LOG_SUM * heads


def _unit(step: Step) -> int:
    """Bytes of a number in gated units; autocast leaves products of experts in what they are given."""
    return step.stream if step.model.num_local_experts else step.width


def _feed_forward(step: Step) -> float:
    found = step.model
    times = max(found.num_experts_per_tok, 1)
    fewer = not step.gated or (step.fused and not found.num_local_experts)  # Liger's units are of dense layers
    unit = (2 if fewer else 3) * _unit(step) * found.intermediate_size
    routed = times * _unit(step) * found.hidden_size if found.num_local_experts else 0
    dropped = 2 * found.hidden_size if step.dropout else 0
    return times * unit + routed + dropped
