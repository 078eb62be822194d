"""What only a long run shows: memory that grows, and a training that is taken up again and again."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kill_work import recurrent
from PIL import Image

import recseg
from recseg.training import trainer as training
from recseg.training.config import load_config
from recseg.training.train import resume, training_data
from runs import begin, same_run, step_of

pytestmark = pytest.mark.slow
RESTARTS = 24


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows how much memory a process holds, on Linux")
@pytest.mark.parametrize("sizes", ["one", "many"])
def test_a_thousand_predictions_in_flat_memory(
    sizes: str, tiny_recurrent: Path, tiny_dense: Path, record_property: Callable[[str, object], None]
) -> None:
    generator = np.random.default_rng(0)
    models = [recseg.load(tiny_recurrent), recseg.load(tiny_dense)]
    # With many sizes the largest comes first: what it needs is not growth.
    shapes = [(300, 400), *generator.integers(20, 300, (199, 2)).tolist()] if sizes == "many" else [(120, 160)]
    pictures = [Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    found = []
    for call in range(200 + 1000):
        recseg.predict(pictures[call % len(pictures)], models[call % 2])
        if call >= 199 and (call - 199) % 100 == 0:
            found.append(resident())  # the first after warming up
    growth = found[-1] / found[0] - 1
    record_property("growth of memory in 1,000 predictions", f"{100 * growth:+.2f} % of {found[0] / 1e6:.0f} MB")
    assert growth < 0.05


def test_24_restarts_end_as_one_training(
    tiny_voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(training, "build_model", recurrent)
    steps = 3 * (RESTARTS + 1)
    whole, cut = (begin(tmp_path / name, tiny_voc, steps=steps) for name in ("whole", "cut"))
    resume(whole, progress=False)
    for restart in range(1, RESTARTS + 1):
        config = load_config(cut / "config.json")
        trainer = training.Trainer(config, training_data(config), cut)
        if restart > 1:
            trainer.restore()
        trainer.run(progress=False, until=3 * restart)
        assert step_of(cut) == 3 * restart
    resume(cut, progress=False)
    same_run(whole, cut, steps)
    record_property("restarts", RESTARTS)
