"""Attention's formula, and the two ways to compute it. Shapes and masks: see ``layers.py``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from minilm.models.dropout import dropout


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    scale: float | None,
    p: float,
    cap: float = 0.0,
) -> Tensor:
    """dropout(softmax(Q K^T * scale + mask)) V, step by step.

    query: (B, H, T, D/H)
    key, value: (B, G, S, D/H)
    mask: (B or 1, H or 1, T or 1, S), boolean, or numbers to add to the scores
    causal: in place of a mask, let query ``t`` see the keys ``s <= t``
    scale: None: 1 / sqrt(D/H)
    p: probability that a weight is dropped
    cap: if above 0, scores z are cap * tanh(z / cap), before the mask (Gemma 2)

    Returns (B, H, T, D/H).
    """
    batch, heads, length, width = query.shape
    groups, keys = key.shape[1:3]
    if causal:
        mask = torch.ones(length, keys, dtype=torch.bool, device=query.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -math.inf)
    query = query * (width**-0.5 if scale is None else scale)
    scores = query.reshape(batch, groups, -1, width) @ key.mT  # (B, G, H/G * T, S): the queries of a group together
    scores = scores.view(batch, heads, length, keys)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    weights = dropout((scores if mask is None else scores + mask).softmax(-1), p)
    return (weights.view(batch, groups, -1, keys) @ value).view(batch, heads, length, width)


SHORT = 1024  # keys; with more, storing the weights costs more than the fused kernel's slower arithmetic


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool, scale: float | None, p: float
) -> Tensor:
    """``explicit_attention``, or PyTorch's ``scaled_dot_product_attention`` (SDPA) if that is faster.

    SDPA does not store the (T, S) weights. But on a CPU, it does not use its fast kernel with dropout, and its
    bfloat16 kernel's gradient takes up to five times as long as that of the formula. (Without a gradient, that kernel
    takes two thirds of the formula's time for 64 keys, and a quarter for 512.)
    """
    learns = query.requires_grad or key.requires_grad or value.requires_grad
    slow = query.dtype == torch.bfloat16 and learns and key.shape[2] <= SHORT
    if query.device.type == "cpu" and (p > 0 or slow):
        return explicit_attention(query, key, value, mask, causal=causal, scale=scale, p=p)
    heads_per_group = query.shape[1] // key.shape[1]
    if heads_per_group > 1 and not takes_groups(query, mask):
        key, value = (kv.repeat_interleave(heads_per_group, dim=1) for kv in (key, value))
    return F.scaled_dot_product_attention(
        query, key, value, mask, dropout_p=p, is_causal=causal, scale=scale, enable_gqa=key.shape[1] != query.shape[1]
    )


def takes_groups(query: Tensor, mask: Tensor | None) -> bool:
    """Whether SDPA has a fast kernel for fewer key-value heads than heads. If not, they are repeated first.

    On a CPU, SDPA's fast kernel takes groups. On CUDA, only FlashAttention does, and it takes neither a mask nor
    float32. For other inputs SDPA would use its plain kernel, which stores all (T, S) weights (torch, sdp_utils.cpp).
    """
    return not query.is_cuda or (mask is None and query.dtype != torch.float32)
