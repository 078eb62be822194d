"""Answers to the exercises as readers write them: a right one, a wrong one, and what is said of the wrong one."""

import math
from functools import partial
from typing import Any, NamedTuple

import exercise_code as code
import numpy as np
import torch

from recseg import UNet, UNetConfig


class Answers(NamedTuple):
    right: Any
    wrong: Any
    said: str  # of the wrong one


ANSWERS = {
    "ch01.ex1": Answers(code.paint, lambda m, c: m.sum(dim=0), "painted with a 1"),
    "ch01.ex2": Answers(lambda c: c + 2, lambda c: c, "channel for background"),
    "ch01.ex3": Answers(code.losing(), 100 * code.losing(), "in per cent"),
    "ch01.ex4": Answers(math.factorial(5), math.factorial(5) - 1, "too small"),
    "ch01.ex5": Answers(
        sum(math.comb(20, n) for n in range(6)), sum(math.comb(20, n) for n in range(1, 6)), "empty set"
    ),
    "ch02.ex1": Answers(
        lambda x, d, k, n: 4 * d * ((x + (2 * n - 1) * d) * k * k + n),
        lambda x, d, k, n: 4 * d * (x + (2 * n - 1) * d) * k * k,
        "biases are missing",
    ),
    "ch02.ex2": Answers(code.tracker(2, 1), code.tracker(0, 1), "goes down"),
    "ch02.ex3": Answers(code.frame_by_frame, lambda *given: code.frame_by_frame(*given, carry=False), "state of zeros"),
    "ch02.ex4": Answers(lambda d, h, w: 3 * d * h * w, lambda d, h, w: 4 * d * h * w, "no peephole"),
    "ch02.ex5": Answers(
        lambda k, side: math.ceil(2 * (side - 1) / (k - 1)), lambda k, side: math.ceil((side - 1) / (k - 1)), "half of"
    ),
    "ch02.ex6": Answers(code.gru, lambda *given: code.gru(*given, kept=1), "share of the new"),
    "ch03.ex1": Answers(code.field, lambda layers: code.field(layers, own=True), "multiply by the strides"),
    "ch03.ex3": Answers(code.work, lambda *given: code.work(*given, additions=True), "additions"),
    "ch03.ex4": Answers(UNet(UNetConfig(decoder_widths=(8, 8, 8, 8))), UNet(), "stride 2"),
    "ch03.ex5": Answers(code.forward, lambda *given: code.forward(*given, pad=False), "have to be padded"),
    "ch04.ex1": Answers(code.live, lambda stop: (stop <= 0).sum(dim=1), "after the first stop"),
    "ch04.ex2": Answers(code.uncovered, lambda masks: (1 - masks.sigmoid()).cumprod(dim=0), "after each step"),
    "ch04.ex3": Answers(code.unpack, lambda *given: code.unpack(*given, fill=0.0), "fill with -inf"),
    "ch04.ex4": Answers(code.segment, lambda *given: code.segment(*given, shift=0), "label 1"),
    "ch04.ex5": Answers(
        lambda n, t: (sum(min(k, t) for k in n.tolist()), len(n) * min(max(n.tolist()) + 1, t)),
        lambda n, t: (sum(min(k, t) for k in n.tolist()), len(n) * min(max(n.tolist()), t)),
        "computed as well",
    ),
    "ch05.ex1": Answers(math.factorial(8), 8**8, "same target"),
    "ch05.ex2": Answers([[0.0, 1.0], [0.0, 5.0]], torch.eye(2), "no trap"),
    "ch05.ex3": Answers(code.assign, lambda cost: code.assign(cost, least=False), "largest total"),
    "ch05.ex4": Answers(code.dice_gradient, lambda *given: code.dice_gradient(*given, smooth=0.0), "empty masks"),
    "ch05.ex5": Answers(math.ceil(100 * (1 - 1 / 9 / 0.9999)), 88, "one per cent more"),
    "ch05.ex6": Answers(code.stop, lambda *given: code.stop(*given, shift=1), "off by one"),
    "ch06.ex1": Answers(0b1100, 33, "red and blue are swapped"),
    "ch06.ex2": Answers(code.read_colours, lambda pixels: code.read_colours(pixels, void=0), "void becomes background"),
    "ch06.ex3": Answers(code.fives(), code.fives().clamp(min=3), "holds 3 classes"),
    "ch06.ex4": Answers(
        code.resize, lambda *given: code.resize(*given, mode="bilinear").round(), "resized with bilinear weights"
    ),
    "ch07.ex1": Answers(code.updates() / 500, code.updates() / 8000, "sees a batch"),
    "ch07.ex2": Answers(code.cosine, lambda *given: code.cosine(*given, warm=False), "warm-up is missing"),
    "ch07.ex3": Answers(code.average, lambda *given: code.average(*given, warm=False), "warms up"),
    "ch07.ex4": Answers(code.fit, lambda *given: code.fit(*given, copied=False), "keep a copy"),
    "ch08.ex1": Answers(
        lambda *shape: torch.empty(shape).contiguous(memory_format=torch.channels_last).stride(),
        lambda *shape: torch.empty(shape).stride(),
        "default order",
    ),
    "ch08.ex2": Answers(code.bound, lambda *given: code.bound(*given, each=False), "the larger of two sums"),
    "ch08.ex3": Answers(code.scaled, lambda *given: code.scaled(*given, skip=False), "leave such an update out"),
    "ch08.ex4": Answers(code.accumulate, lambda *given: code.accumulate(*given, mean=True), "a mean of means"),
    "ch08.ex5": Answers(code.ring, lambda *given: code.ring(*given, whole=True), "send single parts"),
    "ch09.ex1": Answers(code.iou, code.by_image, "averaged by image"),
    "ch09.ex2": Answers(code.paired, code.unpaired, "two intervals were subtracted"),
    "ch09.ex3": Answers(code.best_area, partial(code.best_area, largest=True), "the smallest is asked for"),
    "ch09.ex4": Answers(code.on_black(code.iou), code.on_black(code.by_image), "averaged by image"),
    "ch09.ex5": Answers(lambda labels: code.named(labels, 1), lambda labels: code.named(labels, 5), "name fewer"),
    "ch10.ex1": Answers(0.37 / 19, 0.37, "pixel accuracy"),
    "ch10.ex3": Answers(code.swap, code.one_after_the_other, "both are cats"),
    "ch10.ex5": Answers(code.check_score, lambda *given: code.check_score(*given, black=False), "says nothing of"),
    "ch11.ex1": Answers(code.remap, partial(code.remap, other=0), "void, 255, not background"),
    "ch11.ex2": Answers(code.rarity, partial(code.rarity, power=1.0), "square root"),
    "ch11.ex3": Answers(code.leaks, lambda train, val: sorted(set(train) & set(val)), "numbers of the tables"),
    "ch12.ex1": Answers(
        lambda network, image: np.mean(np.fliplr(network(torch.flip(image, [-1]))) != network(image)),
        lambda network, image: np.mean(network(torch.flip(image, [-1])) != network(image)),
        "mirror the label map back",
    ),
    "ch12.ex2": Answers(
        lambda one, other: {k: 0.5 * one[k] + 0.5 * other[k].fliplr() for k in one.keys() & other.keys()},
        lambda one, other: {k: 0.5 * one[k] + 0.5 * other[k] for k in one.keys() & other.keys()},
        "mirror the second mask back",
    ),
    "ch12.ex3": Answers(code.steady, lambda frames: code.steady(frames, once=False), "one vote"),
    "ch12.ex4": Answers(code.write_masks, lambda *given: code.write_masks(*given, white=1), "white is 255"),
    "ch12.ex5": Answers(
        code.lost,
        lambda prediction: [
            float((step.mask & (prediction.labels != step.class_id)).mean()) for step in prediction.steps
        ],
        "share of the image",
    ),
    "ch13.ex2": Answers(code.flip, lambda labels: code.flip(labels, highest=20), "off by one"),
    "ch13.ex3": Answers(code.by_name, code.pooled, "pooled"),
    "ch13.ex5": Answers(code.check_alone, lambda network, images: None, "says nothing of a network in training mode"),
    "ch14.ex1": Answers(
        (4 * 1204 * 512**2, 4 * (2 * 512**2 + 2 * 1203 + 3)), (4 * 1204 * 512**2, 4 * 2 * 512**2), "masks are not all"
    ),
    "ch14.ex2": Answers((21 * 256**2 - 1) / (256**2 + 21), 21, "compares maps alone"),
    "ch14.ex3": Answers(code.gates, lambda *given: code.gates(*given, stop=0), "at the last one the network stops"),
    "ch14.ex4": Answers(code.small_ious, lambda *maps: code.small_ious(*maps, void=True), "void pixels count as wrong"),
    "ch14.ex5": Answers(np.indices((128, 128)).sum(axis=0) % 2, np.eye(128), "not more than"),
    "ch14.ex6": Answers(code.loop, lambda *given: code.loop(*given, late=True), "is no answer"),
    "ch15.ex1": Answers(100 * 99 * 98, 100**3, "one query fewer"),
    "ch15.ex2": Answers(code.suppress, lambda *given: code.suppress(*given, sort=False), "begin with the surest"),
    "ch15.ex3": Answers(code.unroll, lambda *given: code.unroll(*given, clip=False), "those are the sigmoids alone"),
    "ch15.ex4": Answers(code.faults, lambda *given: code.faults(*given, pool=True), "missed"),
    "ch15.ex5": Answers(code.by_label, lambda lengths: code.by_label(lengths, first=1), "counted from 1"),
}
