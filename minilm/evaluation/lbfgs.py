"""L-BFGS, which minimises a smooth function of very many variables (Liu and Nocedal 1989).

Newton's method would go from x to x - H g, with the gradient g and the inverse H of the Hessian matrix, which has too
many elements to store. But for each step s and the change y of the gradient along it, approximately H y = s. So the
last ``HISTORY`` pairs (s, y) are stored, with r = 1 / (y s), and H is approximated by updating a multiple of the
identity with each pair, the oldest first (Nocedal and Wright 2006, equations 7.16, 7.20 and algorithm 7.4):

    H <- (1 - r s y^T) H (1 - r y s^T) + r s s^T                 H_0 = (s y) / (y y), of the last pair

Only H g is ever computed, from right to left, so no matrix is stored. The full step is tried first. While the value
falls by less than a small fraction of the decrease that the slope predicts, the step is shortened to the minimum of the
parabola through the known values (section 3.5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from torch import Tensor

HISTORY = 5  # pairs
ENOUGH = 1e-4  # fraction of the decrease that the slope predicts
SHORTEST = 1e-10  # fraction of a step; below it, rounding errors exceed the possible gain


def minimize(
    function: Callable[[Tensor], tuple[float, Tensor]], x: Tensor, *, tolerance: float, max_steps: int
) -> tuple[Tensor, bool]:
    """The x (n,) of the lowest value found, and whether no derivative is above ``tolerance`` there.

    function: returns the value at x and the gradient (n,) there, as a new tensor.
    """
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=HISTORY)  # s, y and r, the oldest first
    value, gradient = function(x)
    for _ in range(max_steps):
        if float(gradient.abs().max()) <= tolerance:
            return x, True
        direction = _direction(gradient, pairs)
        slope = float(gradient @ direction)
        size = 1.0 if pairs else min(1.0, 1 / float(gradient.abs().sum()))
        while True:
            new_value, new_gradient = function(x + size * direction)
            if new_value <= value + ENOUGH * size * slope:
                break
            size *= max(0.1, min(0.5, -size * slope / (2 * (new_value - value - size * slope))))
            if size < SHORTEST:
                return x, False
        s, y = direction.mul_(size), new_gradient - gradient
        x, value, gradient = x + s, new_value, new_gradient
        if (along := float(y @ s)) > 0:
            pairs.append((s, y, 1 / along))
    return x, False


def _direction(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """-H g."""
    q, parts = -gradient, []
    for s, y, r in reversed(pairs):
        parts.append(r * float(s @ q))
        q.sub_(y, alpha=parts[-1])
    if pairs:
        s, y, r = pairs[-1]
        q /= r * float(y @ y)
    for s, y, r in pairs:
        q.add_(s, alpha=parts.pop() - r * float(y @ q))
    return q
