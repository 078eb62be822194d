"""The dense twin: any size, every encoder, weights from files, and an encoder and decoder that mean what they say."""

import http.client
import urllib.error
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from recseg.errors import RecsegError
from recseg.models.config import ENCODERS, UNetConfig
from recseg.models.unet import DecoderBlock, Encoder, UNet, load_encoder_weights

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
        features = model.encoder(images)
    for feature, channels, stride in zip(features, model.encoder.channels, model.encoder.strides, strict=True):
        assert feature.shape == (1, channels, -(-height // stride), -(-width // stride))


def test_images_of_a_batch_do_not_mix(tiny: UNet) -> None:
    images = torch.rand(3, 3, 33, 47)
    torch.testing.assert_close(tiny(images)[1:2], tiny(images[1:2]), rtol=0, atol=1e-5)


def test_the_encoder_normalises() -> None:
    """What a torchvision classifier sees is the ImageNet normalisation of an image in [0, 1]."""
    encoder = Encoder("resnet18").eval()
    images = torch.rand(1, 3, 32, 32)
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(encoder(images)[0], encoder.stages[0](normalise(images)))
    assert not {"mean", "std"} & encoder.state_dict().keys()  # constants, not weights


@pytest.mark.parametrize("size", [(6, 10), (5, 9), (1, 1)])
def test_decoder_block_is_two_halves_of_one_convolution(size: tuple[int, int]) -> None:
    block = DecoderBlock(3, 4, 5).double().eval()
    x = torch.randn(2, 3, -(-size[0] // 2), -(-size[1] // 2), dtype=torch.float64)
    skip = torch.randn(2, 4, *size, dtype=torch.float64)
    coarse = F.conv2d(x, block.conv_x.weight, padding=1)
    enlarged = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    expected = block.merge(enlarged + F.conv2d(skip, block.conv_skip.weight, padding=1))
    torch.testing.assert_close(block(x, block.project_skip(skip)), expected, rtol=0, atol=1e-12)
    # At one resolution the two halves add up to the convolution over the concatenation.
    joined = torch.cat([torch.randn_like(x), torch.randn(2, 4, *x.shape[2:], dtype=torch.float64)], dim=1)
    weight = torch.cat([block.conv_x.weight, block.conv_skip.weight], dim=1)
    halves = block.conv_x(joined[:, :3]) + block.conv_skip(joined[:, 3:])
    torch.testing.assert_close(F.conv2d(joined, weight, padding=1), halves, rtol=0, atol=1e-12)


def test_decoder_shares_the_skips_of_an_image(tiny: UNet) -> None:
    """Three maps of two images: each is decoded with the skips of its own image."""
    features = tiny.encoder(torch.rand(2, 3, 17, 21))[::-1]
    projected = tiny.decoder.project_skips(features[1:3])
    maps = torch.randn(3, *features[0].shape[1:])
    sample = torch.tensor([0, 0, 1])
    packed = tiny.decoder(maps, projected, sample)
    for k, image in enumerate(sample.tolist()):
        alone = tiny.decoder(maps[k : k + 1], [skip[image : image + 1] for skip in projected])
        torch.testing.assert_close(packed[k : k + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoder", ["plain", "mobilenet_v2"])
def test_gradients_reach_every_parameter(encoder: str) -> None:
    model = UNet(UNetConfig(4, encoder, TINY.encoder_widths, TINY.decoder_widths)).train()
    model(torch.rand(2, 3, 40, 36)).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_trains_on_a_batch_of_one() -> None:
    model = UNet(TINY).train()
    model(torch.rand(1, 3, 33, 47)).mean().backward()


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
        ({"decoder_widths": ()}, "decoder_widths"),
        ({"decoder_widths": (8, 8, 8, 8, 8)}, "expected 1 to 4 blocks"),
    ],
)
def test_impossible_configurations(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecsegError, match=message):
        UNetConfig(**changes)  # type: ignore[arg-type]


# Weights of an encoder


@pytest.fixture(scope="module")
def mobilenet() -> torchvision.models.MobileNetV2:
    """A classifier of random weights, in place of a trained one."""
    torch.manual_seed(1)
    network = torchvision.models.mobilenet_v2(weights=None).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def weights_of(network: torch.nn.Module) -> dict[str, Tensor]:
    """As a published file has them: without batch norm's counters."""
    return {n: t.contiguous() for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}


def test_weights_from_a_file(tmp_path: Path, mobilenet: torchvision.models.MobileNetV2) -> None:
    save_file(weights_of(mobilenet), tmp_path / "weights.safetensors")
    encoder = Encoder("mobilenet_v2").eval()
    load_encoder_weights(encoder, tmp_path / "weights.safetensors")
    images = torch.rand(1, 3, 64, 64)
    x = (images - encoder.mean) / encoder.std
    with torch.no_grad():
        features = encoder(images)
        for feature, stop in zip(features, (2, 4, 7, 14, 18), strict=True):
            torch.testing.assert_close(feature, mobilenet.features[:stop](x))


def test_half_precision_file(tmp_path: Path, mobilenet: torchvision.models.MobileNetV2) -> None:
    save_file({name: t.half() for name, t in weights_of(mobilenet).items()}, tmp_path / "half.safetensors")
    encoder = Encoder("mobilenet_v2")
    load_encoder_weights(encoder, tmp_path / "half.safetensors")
    first = encoder.state_dict()["stages.0.0.0.weight"]
    assert first.dtype == torch.float32
    assert torch.equal(first, mobilenet.features[0][0].weight.half().float())


def test_resnet_from_a_file(tmp_path: Path) -> None:
    network = torchvision.models.resnet18(weights=None).eval()
    save_file(weights_of(network), tmp_path / "weights.safetensors")
    encoder = Encoder("resnet18").eval()
    load_encoder_weights(encoder, tmp_path / "weights.safetensors")
    x = torch.rand(1, 3, 64, 64)
    deepest = encoder(x)[-1]
    seen: list[Tensor] = []
    network.layer4.register_forward_hook(lambda module, args, output: seen.append(output))
    network((x - encoder.mean) / encoder.std)
    torch.testing.assert_close(deepest, seen[0])


def test_wrong_files_are_named_and_change_nothing(tmp_path: Path, mobilenet: torchvision.models.MobileNetV2) -> None:
    encoder = Encoder("mobilenet_v2")
    before = {name: t.clone() for name, t in encoder.state_dict().items()}
    whole = weights_of(mobilenet)
    lacking = {name: t for name, t in whole.items() if name != "features.3.conv.0.0.weight"}
    misshapen = {**whole, "features.0.0.weight": torch.zeros(8, 3, 3, 3)}
    wrong = {
        "missing.safetensors": None,
        "text.safetensors": b"not weights at all",
        "empty.safetensors": b"",
        "stranger.safetensors": {"a": torch.zeros(2)},
        "resnet.safetensors": weights_of(torchvision.models.resnet18(weights=None)),
        "lacking.safetensors": lacking,
        "misshapen.safetensors": misshapen,
    }
    for name, content in wrong.items():
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            save_file(content, file)
        with pytest.raises(RecsegError, match=name) as caught:
            load_encoder_weights(encoder, file)
        assert "\n" not in str(caught.value)
    with pytest.raises(RecsegError, match=str(tmp_path)):
        load_encoder_weights(encoder, tmp_path)
    assert all(torch.equal(t, before[name]) for name, t in encoder.state_dict().items())


def test_the_plain_encoder_has_no_weights_to_load(tmp_path: Path) -> None:
    with pytest.raises(RecsegError, match="encoder 'plain': no pretrained weights exist"):
        load_encoder_weights(Encoder(widths=(4, 6)))


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("Temporary failure in name resolution"),
        ConnectionResetError("Connection reset by peer"),
        TimeoutError("timed out"),
        http.client.IncompleteRead(b"half of it", 99),
        RuntimeError('invalid hash value (expected "7ebf99e0", got "e3b0c442")'),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_pretrained_without_a_network(failure: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise failure

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing was fetched before
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(RecsegError, match="--pretrained mobilenet_v2: .* --encoder-weights FILE") as caught:
        load_encoder_weights(Encoder("mobilenet_v2"))
    assert "\n" not in str(caught.value)


def test_pretrained_from_the_cache(monkeypatch: pytest.MonkeyPatch, mobilenet: torchvision.models.MobileNetV2) -> None:
    """What torchvision would fetch is what the encoder gets."""
    weights = torchvision.models.get_model_weights("mobilenet_v2")
    monkeypatch.setattr(weights, "get_state_dict", lambda self, *args, **kwargs: mobilenet.state_dict())
    encoder = Encoder("mobilenet_v2")
    load_encoder_weights(encoder)
    assert torch.equal(encoder.state_dict()["stages.0.0.0.weight"], mobilenet.features[0][0].weight)
