"""Exercises of chapter 2: the ConvLSTM."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Mistakes, Off
from recseg.book.exercises.running import call
from recseg.models.convlstm import ConvLSTM, ConvLSTMCell


def _parameters(inputs: int, hidden: int, kernel: int, layers: int) -> int:
    network = ConvLSTM(inputs, hidden, kernel, layers)
    return sum(parameter.numel() for parameter in network.parameters())


def _count(inputs: int, hidden: int, kernel: int, layers: int, *, gates: int = 4, biases: int = 1) -> int:
    first = gates * hidden * ((inputs + hidden) * kernel**2 + biases)
    later = gates * hidden * (2 * hidden * kernel**2 + biases)
    return first + (layers - 1) * later


PARAMETERS = Function(
    "(X, D, k, layers) → number of parameters",
    _parameters,
    lambda: (
        Case("X = {}, D = {}, k = {}, {} layer(s)".format(*sizes), sizes)
        for sizes in ((1, 1, 1, 1), (3, 8, 3, 1), (3, 8, 3, 2), (16, 4, 5, 3))
    ),
    [
        (
            lambda x, d, k, layers: _count(x, d, k, layers, biases=0),
            "the biases are missing: one for each channel of the four gate maps",
        ),
        (
            lambda x, d, k, layers: _count(x, d, k, layers, biases=2),
            "there is one bias per channel, not two: only the input's half has one",
        ),
        (
            lambda x, d, k, layers: _count(x, d, k, layers, gates=1),
            "each layer has four maps i, f, g, o, each with weights of its own",
        ),
        (
            lambda x, d, k, layers: _count(x, d, k, layers, gates=3),
            "the candidate g has weights, too: four maps and not three gates",
        ),
        (
            lambda x, d, k, layers: layers * _count(x, d, k, 1),
            "a later layer does not read X channels: its input is the D channels of the layer below",
        ),
        (
            lambda x, d, k, layers: _count(x, d, 1, layers),
            "a kernel has k·k weights for each pair of channels",
        ),
    ],
)


def _riser(row: int) -> ConvLSTMCell:
    """A cell whose state reads from one row of the kernel: 2 is below (the ball rises), 0 is above (it sinks)."""
    cell = ConvLSTMCell(1, 1).requires_grad_(False)
    cell.conv_x.weight.zero_()
    cell.conv_h.weight.zero_()
    assert cell.conv_x.bias is not None
    cell.conv_x.bias.copy_(torch.tensor([6.0, -6.0, -1.0, 6.0]))
    cell.conv_x.weight[2, 0, 1, 1] = 6.0
    cell.conv_h.weight[2, 0, row, 1] = 4.0
    return cell


def _judge_riser(answer: Any) -> None:
    if not isinstance(answer, torch.nn.Module):
        raise Off(f"expected a cell such as `ConvLSTMCell(1, 1)`, not {type(answer).__name__}")
    for top, left in ((4, 5), (5, 2)):
        flash = torch.zeros(5, 1, 1, 12, 12)
        flash[0, 0, 0, top : top + 3, left : left + 3] = 1.0  # a ball, seen once
        state = None
        centres: list[Tensor] = []
        name = f"a ball that is seen once, in the rows {top} to {top + 2}"
        for x in flash:
            with torch.no_grad():
                state = call(answer, name, (x, state))
            lit = (state[0][0, 0] > 0).nonzero().double()  # (N, 2)
            if not len(lit):
                raise Off(f"the state forgets the ball: it is empty after step {len(centres) + 1}")
            centres.append(lit.mean(dim=0))  # (2,)
        down, right = ((centres[-1] - centres[0]) / (len(centres) - 1)).tolist()
        if abs(down - 1) < 0.1 and abs(right) < 0.1:
            raise Off("the ball goes down: a kernel's row 0 reads from above, row 2 from below")
        if abs(down) < 0.1 and abs(right) < 0.1:
            raise Off("the ball stays where it is: the state has to read from a neighbour")
        if abs(down + 1) > 0.1 or abs(right) > 0.1:
            raise Off(f"the ball moves by {down:+.2f} rows and {right:+.2f} columns a step; expected -1 and 0")


def _risers() -> Mistakes:
    rightward, forgetful = _riser(1), _riser(2)
    rightward.conv_h.weight[2, 0] = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 0, 0]])
    forgetful.conv_h.weight.zero_()
    return [
        (_riser(0), "the ball goes down"),
        (_riser(1), "stays where it is"),
        (rightward, "+1.00 columns"),
        (forgetful, "forgets the ball"),
        (7, "expected a cell"),
    ]


def _films() -> Iterator[Case]:
    torch.manual_seed(2)
    film = torch.randn(6, 2, 3, 5, 5)
    with torch.no_grad():
        for layers in (1, 2):
            layer = ConvLSTM(3, 4, num_layers=layers).requires_grad_(False)
            for cut in (1, 4):
                yield Case(f"a film of 6 frames, cut after {cut}, {layers} layer(s)", (layer, film, cut))


def _forgetting(layer: ConvLSTM, film: Tensor, cut: int) -> Tensor:
    return torch.cat([layer(film[:cut])[0], layer(film[cut:])[0]])


def _only_the_end(layer: ConvLSTM, film: Tensor, cut: int) -> Tensor:
    _, state = layer(film[:cut])
    output: Tensor = layer(film[cut:], state)[0]
    return output


PARTS = Function(
    "(layer, film, cut) → hidden states of all steps",
    lambda layer, film, cut: layer(film)[0],
    _films,
    [
        (_forgetting, "the second part starts with a state of zeros: hand it the one that the first part left"),
        (_only_the_end, "the hidden states of the first part are missing"),
    ],
)


def _peepholes(hidden: int, height: int, width: int) -> int:
    """V has the size of the cell state, once for each of i, f, o."""
    cell = ConvLSTMCell(1, hidden)
    c = cell.zero_state(torch.zeros(1, 4 * hidden, height, width))[1]
    return 3 * c.numel()


PEEPHOLES = Function(
    "(D, H, W) → number of weights",
    _peepholes,
    lambda: (Case("D = {}, H = {}, W = {}".format(*sizes), sizes) for sizes in ((1, 1, 1), (64, 8, 8), (5, 4, 7))),
    [
        (lambda d, h, w: 4 * d * h * w, "the candidate g has no peephole: there are three terms, for i, f and o"),
        (lambda d, h, w: d * h * w, "that is one term; i, f and o have one each"),
        (lambda d, h, w: 3 * d, "a term has a weight for each entry of the map, so for each position as well"),
        (lambda d, h, w: 3 * d * d * h * w, "∘ multiplies entry by entry: no channel meets another one"),
    ],
)


@torch.no_grad()
def _heard(kernel: int, side: int) -> int:
    """By running a cell: the first step in which a corner changes if the opposite corner is changed."""
    cell = ConvLSTMCell(1, 2, kernel).double()
    quiet = torch.zeros(1, 1, side, side).double()
    touched = quiet.clone()
    touched[0, 0, 0, 0] = 1.0
    one = other = None
    for step in range(1, 4 * side):
        one, other = cell(quiet, one), cell(touched, other)
        if (one[0] != other[0])[0, :, -1, -1].any():
            return step
    raise AssertionError("not heard")


HEARD = Function(
    "(k, side) → number of steps",
    _heard,
    lambda: (
        Case(f"k = {kernel}, a map of {side}×{side}", (kernel, side))
        for kernel, side in ((3, 8), (5, 8), (3, 2), (5, 6), (7, 9))
    ),
    [
        (
            lambda k, side: -(-(side - 1) // (k - 1)),
            "a step carries a message (k - 1)/2 positions: half of the kernel's reach",
        ),
        (lambda k, side: -(-side // ((k - 1) // 2)), "off by one: from corner to corner are side - 1 positions"),
        (lambda k, side: (side - 1) // ((k - 1) // 2), "a step that is needed in part is needed: round up"),
        (
            lambda k, side: 1 + -(-(side - 1) // ((k - 1) // 2)),
            "off by one: the input's kernel carries the message in the first step already",
        ),
    ],
)


def _gru(
    x: Tensor, h: Tensor, update: Tensor, reset: Tensor, candidate: Tensor, *, mix: str = "new", order: str = "before"
) -> Tensor:
    """One step of a convolutional GRU; `mix` and `order` produce the mistakes."""
    inputs, pad = x.shape[1], update.shape[-1] // 2
    both = torch.cat([x, h], dim=1)  # (B, X + D, H, W)
    z = conv2d(both, update, padding=pad).sigmoid()
    r = conv2d(both, reset, padding=pad).sigmoid()
    if order == "before":
        g = conv2d(torch.cat([x, r * h], dim=1), candidate, padding=pad).tanh()
    else:
        g = conv2d(x, candidate[:, :inputs], padding=pad) + r * conv2d(h, candidate[:, inputs:], padding=pad)
        g = g.tanh()
    return (1 - z) * h + z * g if mix == "new" else z * h + (1 - z) * g


def _grus() -> Iterator[Case]:
    torch.manual_seed(6)
    for x, d, k in ((2, 3, 3), (1, 4, 1), (3, 2, 5)):
        kernels = torch.randn(3, d, x + d, k, k) / k
        yield Case(f"X = {x}, D = {d}, k = {k}", (torch.randn(2, x, 5, 6), torch.randn(2, d, 5, 6), *kernels.unbind(0)))


GRU = Function(
    "(x, h, U_z, U_r, U_g) → new h",
    _gru,
    _grus,
    [
        (lambda *given: _gru(*given, mix="old"), "z is the share of the new: h is kept where z is 0"),
        (
            lambda *given: _gru(*given, order="after"),
            "that is PyTorch's GRU; here r multiplies h before the convolution and not its result",
        ),
    ],
)

EXERCISES: dict[int, Exercise] = {
    1: PARAMETERS,
    2: Custom(_judge_riser, _risers),
    3: PARTS,
    4: PEEPHOLES,
    5: HEARD,
    6: GRU,
}
