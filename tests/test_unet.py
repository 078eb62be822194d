"""The dense baseline: any size, every encoder, and a decoder that means what it says."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recseg.data.images import MEAN_COLOUR
from recseg.errors import RecsegError
from recseg.models.config import ENCODERS, UNetConfig
from recseg.models.unet import Decoder, DecoderBlock, UNet, crop_padding, pad_to_stride

TINY = UNetConfig(num_classes=4, encoder_widths=(4, 6, 8, 10), decoder_widths=(8, 6))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def tiny() -> UNet:
    return UNet(TINY).eval()


@given(height=st.integers(1, 50), width=st.integers(1, 50), batch=st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_any_size(tiny: UNet, height: int, width: int, batch: int) -> None:
    images = torch.rand(batch, 3, height, width)
    assert tiny(images).shape == (batch, 4, height, width)
    assert tiny.pixel_logits(images).shape == (batch, 4, -(-height // 2), -(-width // 2))  # two blocks of three: 1/2


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size", [(33, 47), (64, 32)])
def test_every_encoder(encoder: str, size: tuple[int, int]) -> None:
    height, width = size
    model = UNet(UNetConfig(num_classes=5, encoder=encoder, decoder_widths=(16, 12, 8))).eval()
    images = torch.rand(1, 3, height, width)
    with torch.no_grad():
        assert model(images).shape == (1, 5, height, width)


def test_images_of_a_batch_do_not_mix(tiny: UNet) -> None:
    images = torch.rand(3, 3, 33, 47)
    torch.testing.assert_close(tiny(images)[1:2], tiny(images[1:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 10), (5, 9), (1, 1)])
def test_decoder_block_is_two_halves_of_one_convolution(size: tuple[int, int]) -> None:
    block = DecoderBlock(3, 4, 5).double().eval()
    x = torch.randn(2, 3, -(-size[0] // 2), -(-size[1] // 2), dtype=torch.float64)
    skip = torch.randn(2, 4, *size, dtype=torch.float64)
    coarse = F.conv2d(x, block.conv_x.weight, padding=1)
    enlarged = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    expected = block.merge(enlarged + F.conv2d(skip, block.conv_skip.weight, padding=1))
    torch.testing.assert_close(block(x, skip), expected, rtol=0, atol=1e-12)
    # At one resolution the two halves add up to the convolution over the concatenation.
    joined = torch.cat([torch.randn_like(x), torch.randn(2, 4, *x.shape[2:], dtype=torch.float64)], dim=1)
    weight = torch.cat([block.conv_x.weight, block.conv_skip.weight], dim=1)
    halves = block.conv_x(joined[:, :3]) + block.conv_skip(joined[:, 3:])
    torch.testing.assert_close(F.conv2d(joined, weight, padding=1), halves, rtol=0, atol=1e-12)


def test_the_decoder_climbs_one_resolution_a_block() -> None:
    """Each block merges the next finer features; finer ones than the output's are not used."""
    channels, strides = (4, 6, 8, 10), (1, 2, 4, 8)
    decoder = Decoder(channels, strides, (8, 7)).eval()
    assert (decoder.channels, decoder.stride) == (7, 2)
    features = [
        torch.randn(2, width, 32 // stride, 40 // stride) for width, stride in zip(channels, strides, strict=True)
    ]
    expected = decoder.blocks[1](decoder.blocks[0](features[3], features[2]), features[1])
    found = decoder(features)
    assert found.shape == (2, 7, 16, 20) and torch.equal(found, expected)
    assert torch.equal(decoder([torch.full_like(features[0], torch.nan), *features[1:]]), found)


@given(height=st.integers(1, 50), width=st.integers(1, 50), stride=st.sampled_from([1, 2, 8, 32]))
@settings(max_examples=20, deadline=None)
def test_padding_is_grey_and_cropped_away_again(height: int, width: int, stride: int) -> None:
    images = torch.rand(2, 3, height, width)
    padded = pad_to_stride(images, stride)
    assert all(
        0 <= side - own < stride and side % stride == 0
        for side, own in zip(padded.shape[2:], (height, width), strict=True)
    )
    assert torch.equal(padded[:, :, :height, :width], images)
    grey = torch.tensor(MEAN_COLOUR).float().div(255).view(1, 3, 1)  # as a training crop is filled
    for margin in (padded[:, :, height:], padded[:, :, :, width:]):
        torch.testing.assert_close(margin.flatten(2), grey.expand(2, 3, margin[0, 0].numel()))
    assert torch.equal(crop_padding(padded, (height, width), 1), images)


def test_an_odd_size_gives_what_the_padded_image_gives(tiny: UNet) -> None:
    images = torch.rand(1, 3, 33, 47)
    whole = tiny.pixel_logits(pad_to_stride(images, 8))
    torch.testing.assert_close(tiny.pixel_logits(images), whole[:, :, :17, :24])


@pytest.mark.parametrize("encoder", ["plain", "mobilenet_v2"])
def test_gradients_reach_every_parameter(encoder: str) -> None:
    model = UNet(UNetConfig(4, encoder, TINY.encoder_widths, TINY.decoder_widths)).train()
    model(torch.rand(2, 3, 40, 36)).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_trains_on_a_batch_of_one() -> None:
    model = UNet(TINY).train()
    model(torch.rand(1, 3, 33, 47)).square().mean().backward()
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_state_dict_round_trip(tiny: UNet) -> None:
    other = UNet(TINY).eval()
    images = torch.rand(1, 3, 20, 20)
    assert not torch.equal(tiny(images), other(images))
    other.load_state_dict(tiny.state_dict())
    assert torch.equal(tiny(images), other(images))


def test_compiles_without_a_graph_break(tiny: UNet) -> None:
    images = torch.rand(2, 3, 20, 24)
    compiled = torch.compile(tiny, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), tiny(images))


def test_exported_network_runs_at_other_batch_sizes(tiny: UNet) -> None:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(tiny, (torch.rand(2, 3, 20, 24),), dynamic_shapes={"images": {0: batch}}).module()
    for count in (1, 5):
        images = torch.rand(count, 3, 20, 24)
        torch.testing.assert_close(program(images), tiny(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "vgg"}, "encoder 'vgg': expected one of plain, mobilenet_v2, resnet18, resnet34"),
        ({"num_classes": 1}, "num_classes 1"),
        ({"decoder_widths": (8, 8, 8, 8, 8)}, "expected 1 to 4 blocks"),
    ],
)
def test_impossible_configurations(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecsegError, match=message):
        UNetConfig(**changes)  # type: ignore[arg-type]
