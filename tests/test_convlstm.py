"""The ConvLSTM against `torch.nn.LSTM`, and the properties that follow from its definition."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recseg.errors import RecsegError
from recseg.models.convlstm import ConvLSTM, ConvLSTMCell, PaddingMode

TIGHT: dict[str, Any] = {"rtol": 0.0, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def lstm_of(model: ConvLSTM) -> nn.LSTM:
    """The `nn.LSTM` with the weights that the ConvLSTM has at the centre of its kernels."""
    cells = [cell for cell in model.cells if isinstance(cell, ConvLSTMCell)]
    hidden = cells[0].hidden_channels
    lstm = nn.LSTM(cells[0].input_channels, hidden, num_layers=len(cells)).double()
    centre = cells[0].kernel_size // 2
    with torch.no_grad():
        for layer, cell in enumerate(cells):
            getattr(lstm, f"weight_ih_l{layer}").copy_(cell.conv_x.weight[:, :, centre, centre])
            getattr(lstm, f"weight_hh_l{layer}").copy_(cell.conv_h.weight[:, :, centre, centre])
            getattr(lstm, f"bias_ih_l{layer}").copy_(cell.conv_x.bias)
            getattr(lstm, f"bias_hh_l{layer}").zero_()
    return lstm


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_one_pixel_is_an_lstm(kernel_size: int) -> None:
    model = ConvLSTM(3, 4, kernel_size, num_layers=2).double()
    x = random(6, 2, 3, 1, 1)  # (T, B, C, 1, 1)
    state = [(random(2, 4, 1, 1), random(2, 4, 1, 1)) for _ in range(2)]
    outputs, last = model(x, state)

    h0 = torch.stack([h[:, :, 0, 0] for h, _ in state])
    c0 = torch.stack([c[:, :, 0, 0] for _, c in state])
    expected, (h, c) = lstm_of(model)(x[..., 0, 0], (h0, c0))
    torch.testing.assert_close(outputs[..., 0, 0], expected, **TIGHT)
    torch.testing.assert_close(torch.stack([s[0] for s in last])[..., 0, 0], h, **TIGHT)
    torch.testing.assert_close(torch.stack([s[1] for s in last])[..., 0, 0], c, **TIGHT)


def test_one_by_one_kernels_are_an_lstm_at_each_pixel() -> None:
    model = ConvLSTM(3, 4, 1, num_layers=2).double()
    x = random(5, 2, 3, 3, 4)
    outputs, _ = model(x)
    pixels = x.permute(0, 1, 3, 4, 2).reshape(5, 2 * 3 * 4, 3)  # (T, B * H * W, C): each pixel is a sequence
    expected, _ = lstm_of(model)(pixels)
    torch.testing.assert_close(outputs.permute(0, 1, 3, 4, 2).reshape(5, 24, 4), expected, **TIGHT)


def test_two_convolutions_are_one_over_the_concatenation() -> None:
    """Equation 3 of the paper, written out."""
    cell = ConvLSTMCell(2, 3).double()
    x, h, c = random(2, 2, 5, 4), random(2, 3, 5, 4), random(2, 3, 5, 4)
    weight = torch.cat([cell.conv_x.weight, cell.conv_h.weight], dim=1)
    gates = nn.functional.conv2d(torch.cat([x, h], dim=1), weight, cell.conv_x.bias, padding=1)
    i, f, g, o = gates.split(3, dim=1)
    c_new = f.sigmoid() * c + i.sigmoid() * g.tanh()
    got_h, got_c = cell(x, (h, c))
    torch.testing.assert_close(got_c, c_new, **TIGHT)
    torch.testing.assert_close(got_h, o.sigmoid() * c_new.tanh(), **TIGHT)


def test_gradients() -> None:
    model = ConvLSTM(1, 1, 3).double()
    names = [name for name, _ in model.named_parameters()]

    def run(x: Tensor, h: Tensor, c: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        parameters = dict(zip(names, values, strict=True))
        outputs, [(h, c)] = torch.func.functional_call(model, parameters, (x, [(h, c)]))
        return outputs, h, c

    inputs = [random(2, 1, 1, 2, 2), random(1, 1, 2, 2), random(1, 1, 2, 2)]
    inputs += [parameter.detach().clone() for parameter in model.parameters()]
    assert torch.autograd.gradcheck(run, [tensor.requires_grad_() for tensor in inputs])


@given(
    shift=st.tuples(st.integers(-6, 6), st.integers(-6, 6)),
    kernel_size=st.sampled_from([1, 3, 5]),
    height=st.integers(2, 6),
    width=st.integers(2, 6),
)
@settings(max_examples=15, deadline=None)
def test_circular_padding_commutes_with_translation(
    shift: tuple[int, int], kernel_size: int, height: int, width: int
) -> None:
    model = ConvLSTM(2, 3, kernel_size, padding_mode="circular").double()
    x = random(3, 1, 2, height, width)
    moved, _ = model(x.roll(shift, dims=(-2, -1)))
    torch.testing.assert_close(moved, model(x)[0].roll(shift, dims=(-2, -1)), **TIGHT)


@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.integers(1, 3),
    hidden=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    kernel_size=st.sampled_from([1, 3, 5, 7]),
    padding_mode=st.sampled_from(["zeros", "replicate"]),
    bias=st.booleans(),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_shapes_layouts_splits_prefixes_and_batches(
    batch: int,
    steps: int,
    size: tuple[int, int],
    channels: int,
    hidden: list[int],
    kernel_size: int,
    padding_mode: PaddingMode,
    bias: bool,
    data: st.DataObject,
) -> None:
    model = ConvLSTM(channels, hidden, kernel_size, batch_first=True, padding_mode=padding_mode, bias=bias).double()
    x = random(batch, steps, channels, *size)
    outputs, last = model(x)
    assert outputs.shape == (batch, steps, hidden[-1], *size)
    assert [tuple(h.shape) for h, _ in last] == [(batch, n, *size) for n in hidden]
    assert [tuple(c.shape) for _, c in last] == [(batch, n, *size) for n in hidden]
    torch.testing.assert_close(outputs[:, -1], last[-1][0], **TIGHT)

    # The other layout is the same function.
    other = ConvLSTM(channels, hidden, kernel_size, padding_mode=padding_mode, bias=bias).double()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(x.transpose(0, 1))[0].transpose(0, 1), outputs, **TIGHT)

    # What comes later changes nothing before it, and a sequence may be cut anywhere if the state is carried.
    cut = data.draw(st.integers(1, steps))
    head, state = model(x[:, :cut])
    torch.testing.assert_close(head, outputs[:, :cut], **TIGHT)
    if cut < steps:
        tail, end = model(x[:, cut:], state)
        torch.testing.assert_close(tail, outputs[:, cut:], **TIGHT)
        for (h, c), (h_whole, c_whole) in zip(end, last, strict=True):
            torch.testing.assert_close(h, h_whole, **TIGHT)
            torch.testing.assert_close(c, c_whole, **TIGHT)

    # Images of a batch do not see each other.
    one = data.draw(st.integers(0, batch - 1))
    torch.testing.assert_close(model(x[one : one + 1])[0], outputs[one : one + 1], **TIGHT)


def test_state_dict_round_trip() -> None:
    first, second = (ConvLSTM(2, [3, 4], 3).double() for _ in range(2))
    x = random(3, 2, 2, 5, 4)
    assert not torch.equal(first(x)[0], second(x)[0])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x)[0], second(x)[0])


def test_a_fresh_cell_remembers() -> None:
    cell = ConvLSTMCell(2, 3, forget_bias=1.0)
    assert cell.conv_x.bias is not None
    i, f, g, o = cell.conv_x.bias.chunk(4)
    assert torch.equal(f, torch.ones(3))
    assert not torch.cat([i, g, o]).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_cell_in_float32(dtype: torch.dtype) -> None:
    model = ConvLSTM(2, 3, 3)
    x = torch.randn(4, 1, 2, 5, 5)
    exact, _ = model(x)
    with torch.autocast("cpu", dtype):
        outputs, [(h, c)] = model(x)
        carried, [(_, c_carried)] = model(x, [(h, c)])
    assert outputs.dtype == h.dtype == carried.dtype == dtype
    assert c.dtype == c_carried.dtype == torch.float32
    share = 2**-8 if dtype == torch.bfloat16 else 2**-11  # of a number, what rounding takes away
    assert not torch.equal(outputs.float(), exact)
    torch.testing.assert_close(outputs.float(), exact, rtol=4 * share, atol=4 * share)
    outputs.float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_half_precision_module() -> None:
    model = ConvLSTM(2, 3, 3).bfloat16()
    outputs, [(h, c)] = model(torch.randn(2, 1, 2, 4, 4).bfloat16())
    assert (outputs.dtype, h.dtype, c.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)


def test_zero_state_follows_the_gates() -> None:
    cell = ConvLSTMCell(2, 3).double()
    h, c = cell.zero_state(cell.input_gates(random(2, 2, 4, 5)))
    assert h.shape == c.shape == (2, 3, 4, 5)
    assert h.dtype == c.dtype == torch.float64
    h, c = cell.to("meta").zero_state(torch.empty(2, 12, 4, 5, device="meta"))
    assert h.device.type == c.device.type == "meta"


def test_compiles_without_a_graph_break() -> None:
    cell = ConvLSTMCell(2, 3).double()
    compiled = torch.compile(cell, fullgraph=True, backend="eager")
    x = random(2, 2, 4, 5)
    state = cell(x)
    for got, expected in zip((*compiled(x), *compiled(x, state)), (*state, *cell(x, state)), strict=True):
        torch.testing.assert_close(got, expected, **TIGHT)

    model = ConvLSTM(2, [3, 2], 3, batch_first=True).double()
    sequence = random(2, 3, 2, 4, 5)
    outputs, _ = torch.compile(model, fullgraph=True, backend="eager")(sequence)
    torch.testing.assert_close(outputs, model(sequence)[0], **TIGHT)


def test_exported_cell_runs_at_any_size() -> None:
    cell = ConvLSTMCell(2, 3).double()
    batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
    sizes = {0: batch, 2: height, 3: width}
    state = (random(2, 3, 6, 5), random(2, 3, 6, 5))
    program = torch.export.export(
        cell, (random(2, 2, 6, 5), state), dynamic_shapes={"x": sizes, "state": (sizes, sizes)}
    ).module()
    for b, h, w in ((1, 6, 5), (3, 9, 4), (5, 3, 13)):
        x, state = random(b, 2, h, w), (random(b, 3, h, w), random(b, 3, h, w))
        for got, expected in zip(program(x, state), cell(x, state), strict=True):
            torch.testing.assert_close(got, expected, **TIGHT)


def test_exported_sequence_runs_at_any_size() -> None:
    model = ConvLSTM(2, [3, 2], 3, batch_first=True).double()
    batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
    sizes = {0: batch, 3: height, 4: width}
    program = torch.export.export(model, (random(2, 3, 2, 6, 5),), dynamic_shapes={"x": sizes}).module()
    for b, h, w in ((1, 6, 5), (3, 9, 4)):
        x = random(b, 3, 2, h, w)
        torch.testing.assert_close(program(x)[0], model(x)[0], **TIGHT)


@pytest.mark.parametrize("kernel_size", [0, 2, 4, -3])
def test_a_kernel_without_a_centre_is_refused(kernel_size: int) -> None:
    with pytest.raises(ValueError, match=f"kernel_size {kernel_size}: expected an odd number"):
        ConvLSTMCell(2, 3, kernel_size)


def test_errors_name_the_value() -> None:
    with pytest.raises(RecsegError, match="channels 0 -> 3"):
        ConvLSTMCell(0, 3)
    with pytest.raises(RecsegError, match=r"hidden_channels \[2, 3\]: expected 3"):
        ConvLSTM(2, [2, 3], num_layers=3)
    with pytest.raises(RecsegError, match="0 layers"):
        ConvLSTM(2, [])
    model = ConvLSTM(2, 3)
    with pytest.raises(RecsegError, match=r"shape \(1, 2, 4, 4\): expected \(T, B, C, H, W\)"):
        model(torch.zeros(1, 2, 4, 4))
    with pytest.raises(RecsegError, match="state of 2 layers: expected 1"):
        model(torch.zeros(1, 1, 2, 4, 4), [model.cells[0](torch.zeros(1, 2, 4, 4))] * 2)
    with pytest.raises(RecsegError, match="0 steps"):
        model(torch.zeros(0, 1, 2, 4, 4))
