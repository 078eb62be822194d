"""The published network: its size, its habits, and that its output says what its softmax said."""

import pytest
import torch
from torch import Tensor, nn

from recseg.errors import RecsegError
from recseg.inference.fusion import fuse
from recseg.models.baseline import PublishedConfig, PublishedNetwork, published_loss

TINY = PublishedConfig(num_classes=4, max_steps=3, input_size=20, widths=(4, 6), dropout=0.1, head_dropout=0.1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def tiny(end_bias: float = 0.0) -> PublishedNetwork:
    """A narrow network with settled batch statistics; `end_bias` makes it stop late (< 0) or at once (> 0)."""
    network = PublishedNetwork(TINY)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 20, 20))
        last = network.head[-1]
        assert isinstance(last, nn.Linear)
        last.bias[0] += end_bias
    return network.eval()


def ends(network: PublishedNetwork, images: Tensor) -> Tensor:
    """Probability of "end" at each step, from the softmax over all labels."""
    return network.forward_all(images)[1].softmax(dim=2)[:, :, 0]


def test_published_size() -> None:
    with torch.device("meta"):  # shapes without memory
        network = PublishedNetwork()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert abs(count - 59.8e6) < 0.1e6
    seconds = [block.get_submodule("4") for block in network.blocks]  # the second convolution of each decoder block
    outputs = [layer.out_channels for layer in seconds if isinstance(layer, nn.Conv2d)]
    assert outputs == [256, 128, 64, 64]
    linear = [layer for layer in network.head if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [512 * 4 * 4, 2048, 1024]
    assert (network.kind, network.num_classes, network.max_steps, network.input_size) == ("published", 21, 5, 256)


def test_stop_and_classes_are_its_softmax() -> None:
    network, images = tiny(), torch.rand(3, 3, 20, 20)
    softmax = network.forward_all(images)[1].softmax(dim=2)  # (B, T, num_classes)
    output = network(images, torch.tensor([3, 1, 2]))
    torch.testing.assert_close(output.stop.sigmoid(), softmax[:, :, 0])
    # p(class) = (1 − p(end)) · p(class | not end)
    going = 1 - output.stop.sigmoid()[output.sample, output.step]
    torch.testing.assert_close(
        going[:, None] * output.classes.softmax(dim=1), softmax[output.sample, output.step][:, 1:]
    )


def test_every_step_of_every_image_at_full_size() -> None:
    masks, classes = tiny().forward_all(torch.rand(2, 3, 20, 20))
    assert masks.shape == (2, 3, 20, 20)
    assert classes.shape == (2, 3, 4)


def test_given_lengths_are_packed() -> None:
    network, images = tiny(), torch.rand(3, 3, 20, 20)
    masks, _ = network.forward_all(images)
    output = network(images, torch.tensor([2, 0, 9]))  # 9: more than it has steps
    assert output.sample.tolist() == [0, 0, 2, 2, 2]
    assert output.step.tolist() == [0, 1, 0, 1, 2]
    assert output.lengths.tolist() == [2, 0, 3]
    assert torch.equal(output.masks, masks[[0, 0, 2, 2, 2], [0, 1, 0, 1, 2]])
    assert output.stop.shape == (3, 3)
    assert output.pixels is None
    assert output.size == (20, 20)


@pytest.mark.parametrize(("end_bias", "expected"), [(50.0, 0), (-50.0, 3)])
def test_learned_stop(end_bias: float, expected: int) -> None:
    network, images = tiny(end_bias), torch.rand(2, 3, 20, 20)
    output = network(images)
    assert output.lengths.tolist() == [expected, expected]
    assert output.masks.shape == (2 * expected, 20, 20)
    assert output.classes.shape == (2 * expected, 3)
    assert fuse(output).shape == (2, 20, 20)
    assert (ends(network, images) > 0.5).all() == (expected == 0)


def test_ends_at_the_first_step_whose_likeliest_label_is_end(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    logits = torch.tensor([[[0.0, 1, 0, 0], [2, 1, 1, 1], [0, 0, 0, 1]], [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]])
    monkeypatch.setattr(network, "forward_all", lambda images: (torch.zeros(2, 3, 20, 20), logits))
    output = network(torch.rand(2, 3, 20, 20))
    assert output.lengths.tolist() == [1, 0]
    # "end" leads at 2 against 1, 1, 1 although its probability is below one half.
    assert float(output.stop.sigmoid()[0, 1]) < 0.5


def test_every_step_is_decoded_whatever_the_image_holds() -> None:
    network, rows = tiny(50.0), []
    network.blocks[-1].register_forward_hook(lambda module, args, out: rows.append(len(out)))
    assert len(network(torch.rand(2, 3, 20, 20)).sample) == 0
    assert sum(rows) == 2 * 3


def test_steps_differ_and_images_do_not_mix() -> None:
    network, images = tiny(), torch.rand(2, 3, 20, 20)
    masks, classes = network.forward_all(images)
    assert not torch.equal(masks[:, 0], masks[:, 1])
    alone, alone_classes = network.forward_all(images[1:])
    torch.testing.assert_close(alone, masks[1:])
    torch.testing.assert_close(alone_classes, classes[1:])


def test_other_sizes_are_refused() -> None:
    with pytest.raises(RecsegError, match="24×20 pixels: the published network takes 20×20 only"):
        tiny()(torch.rand(1, 3, 24, 20))
    with pytest.raises(RecsegError, match="training batch of 1"):
        tiny().train()(torch.rand(1, 3, 20, 20))
    tiny()(torch.rand(1, 3, 20, 20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 250}, "input_size 250: expected a multiple of 16"),
        ({"input_size": 128}, "input_size 128: expected a multiple of 16 .* 160 or more"),
        ({"num_classes": 1}, "num_classes 1"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"widths": (8,)}, "widths"),
        ({"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_impossible_configurations(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecsegError, match=message):
        PublishedConfig(**changes)  # type: ignore[arg-type]


def test_state_dict_round_trip() -> None:
    first, second = tiny(), PublishedNetwork(TINY).eval()
    second.load_state_dict(first.state_dict())
    images = torch.rand(2, 3, 20, 20)
    assert torch.equal(first.forward_all(images)[0], second.forward_all(images)[0])


def test_gradients_reach_every_parameter() -> None:
    network = PublishedNetwork(TINY).double().train()
    masks = torch.rand(4, 3, 20, 20) > 0.5
    classes = torch.tensor([[1, 2, 0], [3, 0, 0], [0, 0, 0], [1, 2, 3]])
    answer = network.forward_all(torch.rand(4, 3, 20, 20, dtype=torch.double))
    losses = published_loss(*answer, masks, classes, (classes > 0).sum(1))
    losses["loss"].backward()
    silent = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-12}
    # A batch norm takes away whatever a bias before it adds.
    before_norms = {
        f"{name}.{place}.bias"
        for name, layers in network.named_modules()
        if isinstance(layers, nn.Sequential)
        for place, follower in enumerate(list(layers)[1:])
        if isinstance(follower, nn.BatchNorm1d | nn.BatchNorm2d)
    }
    assert silent == before_norms


def test_loss_by_hand() -> None:
    """One image with one class, three steps: steps 1 and 2 teach masks, all three teach labels."""
    mask_logits, class_logits = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 4)
    masks = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    masks[0, 0, 0] = True
    classes, lengths = torch.tensor([[2, 0, 0]]), torch.tensor([1])
    got = published_loss(mask_logits, class_logits, masks, classes, lengths)

    p, y = mask_logits[0, :2].sigmoid(), masks[0, :2].float()
    bce = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    dice = sum(1 - (2 * (p[t] * y[t]).sum() + 1) / (p[t].sum() + y[t].sum() + 1) for t in range(2)) / 2
    one_hot = nn.functional.one_hot(classes[0], 4)
    entries = -(one_hot * class_logits[0].softmax(dim=1).log()).mean()
    torch.testing.assert_close(got["bce"], bce)
    torch.testing.assert_close(got["dice"], dice)
    torch.testing.assert_close(got["classes"], entries)
    torch.testing.assert_close(got["loss"], bce + dice + entries)

    # The mask of step 3, after n + 1, teaches nothing.
    mask_logits[0, 2] += 5
    assert torch.equal(published_loss(mask_logits, class_logits, masks, classes, lengths)["loss"], got["loss"])


def test_it_learns() -> None:
    """Bright images hold class 2, dark ones nothing. One step: batch norm for each step hides which step it is."""
    network = PublishedNetwork(PublishedConfig(4, 1, 20, (8, 12), dropout=0.0, head_dropout=0.0)).train()
    images = torch.cat([torch.full((4, 3, 20, 20), 0.1), torch.full((4, 3, 20, 20), 0.9)])
    images = images + 0.02 * torch.rand_like(images)
    masks = torch.zeros(8, 1, 20, 20, dtype=torch.bool)
    masks[4:, 0, :10] = True
    classes = torch.tensor([[0]] * 4 + [[2]] * 4)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = published_loss(*network.forward_all(images), masks, classes, (classes > 0).sum(1))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    output = network(images)
    assert output.lengths.tolist() == [0] * 4 + [1] * 4
    assert (output.classes.argmax(1) + 1).tolist() == [2] * 4
