"""What tests/test_kills.py starts: a training that is killed again and again, beside one that is left alone.

One process imports PyTorch once and forks a child for each attempt. The child goes on with the run and dies by SIGKILL:
at a random moment, sent by its parent, or by its own hand at a chosen place, such as halfway through the bytes of a
checkpoint. Prints what was found as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open

from recseg.models.baseline import PublishedConfig, PublishedNetwork
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.training import trainer as training
from recseg.training.config import TrainConfig
from recseg.training.train import resume, train
from recseg.training.trainer import Trainer

PLACES = ("moment", "update", "half", "fsync", "replace", "replaced", "log")


def recurrent(config: TrainConfig, **_: Any) -> Any:
    """Wide enough for Muon, and with dropout of its images, so that it depends on the random state as well."""
    sizes: dict[str, Any] = {"encoder_widths": (16, 16, 16), "decoder_widths": (16,), "hidden": 16, "reduced": 16}
    model = RecurrentUNet(replace(config.network, **sizes))
    model.encoder.register_forward_pre_hook(lambda module, given: (F.dropout(given[0], 0.1, module.training),))
    return model


def published(config: TrainConfig, **_: Any) -> Any:
    sizes: dict[str, Any] = {"widths": (2, 2, 2, 4, 4), "input_size": 160}
    return PublishedNetwork(PublishedConfig(config.network.num_classes, config.network.max_steps, **sizes))


MODELS: dict[str, Callable[..., Any]] = {"recurrent": recurrent, "published": published}


def main(data: str, folder: str, model: str, kills: int, seed: int, workers: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    training.LOG_EVERY = 1
    training.build_model = MODELS[model]  # type: ignore[attr-defined]  # in the place of what it imports
    size = 16 if model == "recurrent" else 160
    settings = TrainConfig(
        data=data, model=model, size=size, image_size=size, batch_size=3, steps=2 * kills + 4, seed=seed, device="cpu",
        workers=workers, checkpoint_seconds=1e-9,
    )  # fmt: skip
    whole, cut = Path(folder) / "whole", Path(folder) / "cut"
    started = time.monotonic()
    assert ended(fork(lambda: train(settings, whole, progress=False), whole)) == 0
    pace = (time.monotonic() - started) / (2 * kills + 4)
    draw, done, reached, left = random.Random(seed), Counter[str](), 0, list[str]()
    seen: set[str] = set()
    while done.total() < kills:
        if not left:
            left = draw.sample(PLACES, len(PLACES))  # each once, in another order every time
        place, number = left.pop(), draw.randint(1, 4)
        begun = (cut / "config.json").exists()
        if not begun and cut.exists():
            for rest in cut.iterdir():  # killed before there was a run
                rest.unlink()
        child = fork(lambda: go_on(settings, cut, begun, place, number), cut)  # noqa: B023 - called at once
        if place == "moment":
            time.sleep(draw.uniform(0, 0.1 + 4 * pace))
            os.kill(child, signal.SIGKILL)
        if ended(child) == -signal.SIGKILL:
            done[place] += 1
        reached = check(cut, reached)
        there = {path.name for path in cut.iterdir() if path.name[0] != "."}
        assert there >= seen, f"{seen - there} is gone"
        seen = there
    assert ended(fork(lambda: resume(cut, progress=False), cut)) == 0
    hidden = [path.name for path in cut.iterdir() if path.name.startswith(".")]
    return {"kills": done.total(), "places": done, "steps": settings.steps, "leftovers": hidden}


def go_on(settings: TrainConfig, run: Path, begun: bool, place: str, number: int) -> None:
    arm(place, number, run)
    if begun:
        resume(run, progress=False)
    else:
        train(settings, run, progress=False)


def fork(work: Callable[[], object], run: Path) -> int:
    """Start a child that does the work, noting which images each step sees; returns its process id."""
    child = os.fork()
    if child:
        return child
    update, trace = Trainer.update, run.with_suffix(".trace")

    def traced(self: Trainer, batch: Any) -> Any:
        with open(trace, "a") as stream:
            stream.write(f"{self.step} {' '.join(batch.ids)} {batch.images.sum()}\n")
        return update(self, batch)

    Trainer.update = traced  # type: ignore[method-assign]
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(code)


def ended(child: int) -> int:
    """Exit code of a child, negative after a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(place: str, number: int, run: Path) -> None:
    """Make this process die at the `number`-th time that it comes to a place."""
    left = number

    def before(function: Callable[..., Any], then: Callable[..., Any] = die) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                then(*arguments, **named)
                die()
            return function(*arguments, **named)

        return counted

    def half(file: Path, content: bytes) -> None:
        write(file, content[: len(content) * number // 5])

    def half_a_line(*_: object) -> None:
        with open(run / "log.jsonl", "a") as log:
            log.write('{"step": 1')

    write = Path.write_bytes
    if place == "update":
        Trainer.update = before(Trainer.update)  # type: ignore[method-assign]
    elif place == "half":
        Path.write_bytes = before(write, half)  # type: ignore[method-assign]
    elif place == "fsync":
        os.fsync = before(os.fsync)
    elif place == "replace":
        os.replace, os.link = before(os.replace), before(os.link)
    elif place == "replaced":
        os.replace, os.link = before(os.replace, os.replace), before(os.link, os.link)
    elif place == "log":
        Trainer._write = before(Trainer._write, half_a_line)  # type: ignore[method-assign]


def check(run: Path, reached: int) -> int:
    """The last good checkpoint loads and is no older than before, and the log has no gap; returns the step."""
    step = 0
    for name in ("checkpoint", "weights"):
        if (file := run / f"{name}.safetensors").exists():
            with safe_open(file, framework="pt") as stream:
                tensors = [stream.get_tensor(key) for key in stream.keys()]  # noqa: SIM118 - not a dict
                assert tensors
                if name == "checkpoint":
                    step = json.loads(stream.metadata()["progress"])["step"]
    assert step >= reached, f"went back from step {reached} to {step}"
    lines = (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").exists() else []
    if lines and not lines[-1].endswith("}"):
        lines.pop()  # cut off; to be dropped
    steps = [entry["step"] for entry in map(json.loads, lines) if "loss" in entry]  # without those of validation
    assert steps == list(range(1, len(steps) + 1)), steps
    assert len(steps) >= step, "the log lacks steps that the checkpoint has"
    return step


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4], *map(int, sys.argv[4:]))))  # type: ignore[arg-type]
