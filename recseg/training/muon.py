"""Muon: an optimiser for the weight matrices inside a network.

Chapter 7 of the book explains this file. Sources: Jordan et al., "Muon: an optimizer for hidden layers in neural
networks", 2024; the scale of an update follows Liu et al., "Muon is scalable for LLM training", 2025.

torch.optim.Muon (since torch 2.9) takes matrices only. Here a convolution's weights count as a matrix with one row per
output channel.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Newton-Schulz coefficients of Jordan et al.: small singular values grow fast, all end between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum, then an update of (nearly) equal size along all singular directions of the momentum.

    For a weight W (rows, columns) with gradient G:

        M ← μ M + (1 − μ) G
        W ← (1 − lr · weight_decay) W − lr · 0.2 √max(rows, columns) · orthogonalise((1 − μ) G + μ M)

    A few strong directions dominate most gradients; those of rare features are small. Orthogonalisation makes them all
    the same size. The factor makes an update about as large as AdamW's, so that both can share learning rate and decay.

    Args:
        params: weights of two or more dimensions, as torch's optimisers take them; the first is the output dimension.
        lr: learning rate.
        momentum: μ.
        weight_decay: decoupled weight decay, multiplied by the learning rate as in AdamW.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    raise ValueError(f"a parameter of shape {tuple(parameter.shape)}: Muon expects matrices")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - momentum)
                ahead = weight.grad.lerp(state["momentum"], momentum)  # Nesterov's
                update = orthogonalise(ahead.flatten(1))  # (outputs, inputs · kernel)
                size = 0.2 * max(update.shape) ** 0.5
                weight.mul_(1 - lr * decay).sub_(update.view(weight.shape), alpha=lr * size)
        return loss


def orthogonalise(matrix: Tensor) -> Tensor:
    """(m, n) → (m, n) with the same singular vectors and singular values near 1.

    The Newton-Schulz iteration X ← (a + b X Xᵀ + c (X Xᵀ)²) X acts on each singular value separately and needs only
    matrix products. All its factors are polynomials in the initial X Xᵀ. They are therefore multiplied together, at the
    size of the short side, and applied to the long matrix once: a convolution's is often nine times as long as wide.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix  # (r, n), r ≤ n
    x = x / x.norm().clamp(min=1e-7)
    gram = x @ x.T  # (r, r)
    product = identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(ITERATIONS):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.T if tall else x
