"""Fusion against a plain loop over classes and pixels, written from the formula."""

import torch
import torch.nn.functional as F

from recseg.inference.fusion import fuse, survival
from recseg.models.recurrent_unet import RecurrentOutput, live_pairs


def random_output(lengths: list[int], size: tuple[int, int] = (6, 5), seed: int = 0) -> RecurrentOutput:
    generator = torch.Generator().manual_seed(seed)
    count, steps = sum(lengths), max(lengths, default=1) or 1
    masks = 3 * torch.randn(count, *size, generator=generator)
    classes = 2 * torch.randn(count, 4, generator=generator)
    stop = torch.randn(len(lengths), steps, generator=generator) - 1
    given = torch.tensor(lengths)
    return RecurrentOutput(masks, classes, stop, *live_pairs(given), given, None, size)


def by_the_formula(output: RecurrentOutput, image: int, background: bool = True) -> torch.Tensor:
    height, width = output.size
    odds = torch.zeros(5, height, width)  # of each label against background, which is 1 against itself
    odds[0] = float(background)
    alive = 1.0
    for pair in range(len(output.sample)):
        if output.sample[pair] != image:
            continue
        alive *= 1 - output.stop[image, output.step[pair]].sigmoid().item()
        label = int(output.classes[pair].argmax()) + 1
        odds[label] = torch.maximum(odds[label], alive * output.masks[pair].exp())
    return odds.argmax(0)


def test_fusion_equals_the_formula() -> None:
    for seed in range(20):
        output = random_output([3, 0, 1, 5], seed=seed)
        labels = fuse(output)
        for image in range(4):
            assert torch.equal(labels[image], by_the_formula(output, image))


def test_without_a_background_each_pixel_has_the_best_class() -> None:
    output = random_output([3, 1, 5])
    labels = fuse(output, background=False)
    assert labels.all() and not fuse(output).all()
    for image in range(3):
        assert torch.equal(labels[image], by_the_formula(output, image, background=False))


def test_steps_of_one_class_are_merged() -> None:
    masks = torch.tensor([[[9.0, -9.0]], [[-9.0, 9.0]]])
    classes = torch.tensor([[0.0, 9.0], [0.0, 9.0]])
    lengths = torch.tensor([2])
    output = RecurrentOutput(masks, classes, torch.full((1, 2), -9.0), *live_pairs(lengths), lengths, None, (1, 2))
    assert fuse(output).tolist() == [[[2, 2]]]


def test_of_the_classes_named_fusion_chooses_as_a_softmax_does() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 6, 5, generator=generator)  # a dense map over all labels
    named = torch.tensor([3, 1])
    classes = 9.0 * torch.nn.functional.one_hot(named - 1, 4).float()
    lengths = torch.tensor([2])
    never = torch.full((1, 2), -99.0)
    output = RecurrentOutput(logits[named] - logits[0], classes, never, *live_pairs(lengths), lengths, None, (6, 5))
    restricted = logits[[0, 1, 3]].argmax(dim=0)
    assert torch.equal(fuse(output)[0], torch.tensor([0, 1, 3])[restricted])


def test_nothing_present_is_background() -> None:
    assert fuse(random_output([0, 0])).eq(0).all()


def test_size_is_the_callers() -> None:
    assert fuse(random_output([2, 1]), (13, 7)).shape == (2, 13, 7)


def test_batch_and_single_images_agree() -> None:
    output = random_output([2, 3])
    first = output.sample == 0
    alone = output._replace(
        masks=output.masks[first], classes=output.classes[first], stop=output.stop[:1], sample=output.sample[first],
        step=output.step[first], lengths=output.lengths[:1],
    )  # fmt: skip
    assert torch.equal(fuse(alone)[0], fuse(output)[0])


def test_survival_falls_and_is_a_product() -> None:
    stop = torch.randn(3, 5)
    expected = torch.cumprod(1 - stop.sigmoid(), dim=1)
    assert torch.allclose(survival(stop), expected, atol=1e-6)
    assert (survival(stop).diff(dim=1) <= 0).all()
    assert survival(torch.full((1, 3), 200.0)).isfinite().all()


def test_an_even_chance_is_background_and_labels_are_whole_numbers() -> None:
    output = random_output([2])
    even = output._replace(masks=torch.zeros_like(output.masks), stop=torch.full_like(output.stop, -200.0))
    labels = fuse(even)
    assert labels.dtype == torch.int64 and not labels.any()


def test_masks_are_stretched_smoothly_before_they_compete() -> None:
    output = random_output([3, 2])
    wide = F.interpolate(output.masks[:, None], size=(17, 23), mode="bilinear")[:, 0]
    assert torch.equal(fuse(output, size=(17, 23)), fuse(output._replace(masks=wide), size=(17, 23)))
