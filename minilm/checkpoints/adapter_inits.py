"""Convert PiSSA and OLoRA adapters, whose initial A and B were subtracted from the base weights, to plain LoRA.

PiSSA (Meng et al. 2024, equations 2 to 4) initializes A and B from the largest singular values of W, OLoRA
(Büyükakyüz 2024) from the first columns of its QR decomposition. Both subtract the initial product from W:

    PiSSA    W = U S V^T      A_0 = sqrt(S_r / s) V_r^T     B_0 = U_r sqrt(S_r / s)
    OLoRA    W = Q R          A_0 = R_r                     B_0 = Q_r

    y = (W - s B_0 A_0) x + s B A x

A file contains only the trained A and B, so A_0 and B_0 are computed again from W. A plain adapter of twice the rank on
the unchanged W computes the same, and minilm loads this adapter:

    y = W x + s [B, -B_0] [A; A_0] x

PEFT decomposes a matrix for OLoRA as it is stored. If it is stored transposed (GPT-2), W^T = Q R, so the subtracted
product is R_r^T Q_r^T. A_0 and B_0 still fit if W is square; for other matrices PEFT itself fails.
"""

from __future__ import annotations

import torch
from torch import Tensor

INITS = ("pissa", "olora")


def plain_adapter(
    init: str, a: Tensor, b: Tensor, weight: Tensor, scale: float, *, transposed: bool = False
) -> tuple[Tensor, Tensor]:
    """A (2r, in) and B (out, 2r) of the plain adapter, from the trained A (r, in) and B (out, r) and from W (out, in).

    ``scale``: s. ``transposed``: whether W is stored transposed.
    """
    rank = len(a)
    if weight.is_meta:  # a model without values
        first_a, first_b = torch.zeros_like(a), torch.zeros_like(b)
    elif init == "pissa":
        u, s, vt = torch.linalg.svd(weight.detach().float(), full_matrices=False)
        root = (s[:rank] / scale).sqrt()
        first_a, first_b = root[:, None] * vt[:rank], u[:, :rank] * root
    else:
        w = weight.detach().float()
        q, r = torch.linalg.qr(w.T if transposed else w)
        first_a, first_b = (q[:, :rank].T, r[:rank].T) if transposed else (r[:rank], q[:, :rank])
    return torch.cat([a, first_a.to(a)]), torch.cat([b, -first_b.to(b)], dim=1)
