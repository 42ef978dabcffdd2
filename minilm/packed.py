"""Linear layers whose weights are stored in the order in which oneDNN multiplies them, for inference in bfloat16.

oneDNN computes PyTorch's products on a CPU. It reads a weight in blocks, and ``F.linear`` lays these out again for
every product, which takes a fifth of its time. At inference the weights do not change, so they are laid out once. The
results are the same bit for bit, as the products and sums are the same ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST = 2**29  # weights; a packed copy of more takes more memory than its speed is worth


class PackedLinear(nn.Linear):
    """A linear layer in bfloat16 with a packed copy of its weight. With gradients it computes as ``nn.Linear`` does."""

    def __init__(self, linear: nn.Linear) -> None:
        """linear: with weights in bfloat16. They are shared, and may not change afterwards."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, input: Tensor) -> Tensor:
        """input (..., in_features) -> (..., out_features) in bfloat16."""
        if torch.is_grad_enabled():
            return super().forward(input)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            input.to(torch.bfloat16), self.packed, self.bias, "none", [], ""
        )
        return product


def pack(model: nn.Module) -> None:
    """Pack all linear layers in bfloat16 of a model on the CPU, in place, unless they are too large.

    PyTorch's compiler uses the same two operators, which are not in its documentation: without them nothing changes.
    """
    there = all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype == torch.bfloat16
    ]
    if not there or sum(linear.weight.numel() for *_, linear in found) > MOST:
        return
    for parent, name, linear in found:
        setattr(parent, name, PackedLinear(linear))
