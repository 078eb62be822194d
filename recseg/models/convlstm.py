"""A convolutional LSTM: a recurrent cell whose state is a map.

The state of an LSTM is two vectors, h and c. The state of a ConvLSTM is two *maps*: a vector at each position,
updated from the input and the hidden state around that position. It is an LSTM whose matrix products are
replaced by convolutions.

Source: Shi et al., "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting",
NeurIPS 2015, equation 3. Differences: no peephole terms `W_c ∘ C` (their weights are as large as the map,
which ties a model to one image size), and an initial forget-gate bias of 1, so that an untrained cell
remembers (Jozefowicz et al., "An Empirical Exploration of Recurrent Network Architectures", ICML 2015).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from recseg.errors import RecsegError

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
State = tuple[Tensor, Tensor]  # hidden map h and cell map c, both (B, hidden, H, W)


class ConvLSTMCell(nn.Module):
    r"""One step of a ConvLSTM.

    With input $x_t$ `(B, input, H, W)` and the state $h_{t-1}, c_{t-1}$, both `(B, hidden, H, W)`:

    $$
    \begin{aligned}
    (\hat i, \hat f, \hat g, \hat o) &= W_x * x_t + W_h * h_{t-1} + b && \text{four maps} \\
    c_t &= \sigma(\hat f) \circ c_{t-1} + \sigma(\hat i) \circ \tanh(\hat g) && \text{forget, write} \\
    h_t &= \sigma(\hat o) \circ \tanh(c_t) && \text{show}
    \end{aligned}
    $$

    Each of the four maps is `(B, hidden, H, W)`; $*$ is a convolution that keeps H and W, $\circ$ multiplies
    entry by entry. The gates' order i, f, g, o is that of `torch.nn.LSTM`: on an image of one pixel, or at
    each pixel where the kernels are 1×1, the two are the same function.

    A convolution over the concatenation of $x_t$ and $h_{t-1}$ is a sum of two convolutions. They are kept
    separate here because only $W_h * h_{t-1}$ depends on the previous step: `input_gates` computes
    $W_x * x_t + b$ ahead of the loop, `step` does the rest, `forward` does both.

    Args:
        input_channels: channels of the input.
        hidden_channels: channels of h and of c.
        kernel_size: side of both kernels, odd (an even one would shift the map by half a pixel per step).
        bias: whether the gates have a bias.
        padding_mode: as in `torch.nn.Conv2d`.
        forget_bias: initial bias of the forget gate; no effect without `bias`.

    Raises:
        RecsegError: a kernel size that is even or below 1, or channels below 1.
    """

    def __init__(
        self,
        input_channels: int,
        hidden_channels: int,
        kernel_size: int = 3,
        *,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise RecsegError(f"kernel_size {kernel_size}: expected an odd number, 1 or more")
        if input_channels < 1 or hidden_channels < 1:
            raise RecsegError(f"channels {input_channels} -> {hidden_channels}: expected 1 or more of both")
        self.input_channels = input_channels
        self.hidden_channels = hidden_channels
        self.kernel_size = kernel_size
        self.forget_bias = forget_bias
        gates, padding = 4 * hidden_channels, kernel_size // 2
        self.conv_x = nn.Conv2d(
            input_channels, gates, kernel_size, padding=padding, bias=bias, padding_mode=padding_mode
        )
        self.conv_h = nn.Conv2d(
            hidden_channels, gates, kernel_size, padding=padding, bias=False, padding_mode=padding_mode
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the weights as for one convolution over x and h together; only the forget gate has a bias."""
        fan_in = (self.input_channels + self.hidden_channels) * self.kernel_size**2
        bound = fan_in**-0.5
        nn.init.uniform_(self.conv_x.weight, -bound, bound)
        nn.init.uniform_(self.conv_h.weight, -bound, bound)
        if self.conv_x.bias is not None:
            nn.init.zeros_(self.conv_x.bias)
            forget = self.conv_x.bias[self.hidden_channels : 2 * self.hidden_channels]
            nn.init.constant_(forget, self.forget_bias)

    def input_gates(self, x: Tensor) -> Tensor:
        """The input's contribution to the gates: `(N, input, H, W)` to `(N, 4 * hidden, H, W)`.

        It does not depend on the state: compute it for a whole sequence as one batch, or once if the input is
        the same at every step.
        """
        gates: Tensor = self.conv_x(x)
        return gates

    def zero_state(self, gates_x: Tensor) -> State:
        """The initial state: zeros, two maps `(B, hidden, H, W)` for gates `(B, 4 * hidden, H, W)`."""
        batch, _, height, width = gates_x.shape
        shape = (batch, self.hidden_channels, height, width)
        # c is a running sum: half precision would lose small additions, so it is float32 (or float64).
        cell_dtype = torch.promote_types(gates_x.dtype, torch.float32)
        return gates_x.new_zeros(shape), gates_x.new_zeros(shape, dtype=cell_dtype)

    def step(self, gates_x: Tensor, state: State | None) -> State:
        """The state after one step, from the input's gates `(B, 4 * hidden, H, W)` and the previous state.

        `None` is a state of zeros, for which the convolution and the forget gate are skipped: the first step of
        a sequence costs next to nothing.

        Under autocast or in a half-precision module, h has the precision of `gates_x`; c and the arithmetic of
        the gates are in float32.
        """
        gates = gates_x if state is None else gates_x + self.conv_h(state[0])  # (B, 4 * hidden, H, W)
        gates = gates.to(torch.promote_types(gates.dtype, torch.float32))
        i, f, g, o = gates.chunk(4, dim=1)  # each (B, hidden, H, W)
        c = torch.sigmoid(i) * torch.tanh(g)
        if state is not None:
            c = torch.sigmoid(f) * state[1] + c
        h = torch.sigmoid(o) * torch.tanh(c)
        return h.to(gates_x.dtype), c

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """One step on `x` `(B, input, H, W)`, from `state` or from zeros: the new `(h, c)`."""
        gates_x = self.input_gates(x)
        return self.step(gates_x, state)


class ConvLSTM(nn.Module):
    """Layers of ConvLSTM cells run over a sequence; the h of one layer is the input of the next.

    Args:
        input_channels: channels of the input.
        hidden_channels: channels of each layer's state: one number for all layers, or one for each.
        kernel_size: side of the kernels, odd.
        num_layers: number of layers; default 1, or the length of `hidden_channels`.
        batch_first: inputs and outputs are `(B, T, C, H, W)`; else `(T, B, C, H, W)`, as in `torch.nn.LSTM`.
        bias, padding_mode, forget_bias: as in `ConvLSTMCell`.

    Raises:
        RecsegError: no layers, a list whose length is not `num_layers`, or what `ConvLSTMCell` refuses.
    """

    def __init__(
        self,
        input_channels: int,
        hidden_channels: int | Sequence[int],
        kernel_size: int = 3,
        num_layers: int | None = None,
        *,
        batch_first: bool = False,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(hidden_channels, int):
            hidden = [hidden_channels] * (1 if num_layers is None else num_layers)
        else:
            hidden = list(hidden_channels)
            if num_layers is not None and num_layers != len(hidden):
                raise RecsegError(f"hidden_channels {hidden}: expected {num_layers} numbers, one a layer")
        if not hidden:
            raise RecsegError(f"{num_layers or 0} layers: expected at least one layer")
        self.batch_first = batch_first
        self.cells = nn.ModuleList(
            ConvLSTMCell(before, after, kernel_size, bias=bias, padding_mode=padding_mode, forget_bias=forget_bias)
            for before, after in zip([input_channels, *hidden], hidden, strict=False)
        )

    def forward(self, x: Tensor, state: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """Run the sequence.

        Args:
            x: `(T, B, input, H, W)`, or `(B, T, input, H, W)` with `batch_first`.
            state: (h, c) of each layer from an earlier call, to continue its sequence; None starts a new one.

        Returns:
            The last layer's h at each step, in the layout of `x`, and the last (h, c) of each layer.

        Raises:
            RecsegError: `x` does not have five dimensions or has no step, or the state has the wrong number of layers.
        """
        if x.dim() != 5:
            layout = "(B, T, C, H, W)" if self.batch_first else "(T, B, C, H, W)"
            raise RecsegError(f"input of shape {tuple(x.shape)}: expected {layout}")
        if state is not None and len(state) != len(self.cells):
            raise RecsegError(f"state of {len(state)} layers: expected {len(self.cells)}")
        sequence = x.transpose(0, 1) if self.batch_first else x  # (T, B, C, H, W)
        steps, batch = sequence.shape[:2]
        if steps < 1:
            raise RecsegError("input of 0 steps: expected at least one")
        last: list[State] = []
        for layer, cell in enumerate(self.cells):
            assert isinstance(cell, ConvLSTMCell)  # for the type checker
            gates = cell.input_gates(sequence.flatten(0, 1))  # (T * B, 4 * hidden, H, W): one batch, no loop
            gates = gates.reshape(steps, batch, *gates.shape[1:])  # (T, B, 4 * hidden, H, W)
            h, c = cell.zero_state(gates[0]) if state is None else state[layer]
            outputs = []
            for gates_x in gates.unbind(0):
                h, c = cell.step(gates_x, (h, c))
                outputs.append(h)
            sequence = torch.stack(outputs)  # (T, B, hidden, H, W)
            last.append((h, c))
        return (sequence.transpose(0, 1) if self.batch_first else sequence), last
