"""The ablation: each row trains, and is what it says; what is done is not run again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recseg.book import ablation
from recseg.book.ablation import ROWS, one_run, summary
from recseg.data.pictograms import write_dataset
from recseg.data.stream import count_classes
from recseg.models.config import RecurrentUNetConfig
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.training.config import TrainConfig, resolve
from recseg.training.objective import compute_loss
from recseg.weights.io import load

TINY: dict[str, Any] = {
    "num_classes": 4,
    "encoder_widths": (4, 6, 8),
    "decoder_widths": (8, 7),
    "hidden": 5,
    "reduced": 6,
}


@pytest.mark.parametrize("name", ROWS)
def test_every_row_trains(name: str) -> None:
    row = ROWS[name]
    torch.manual_seed(0)
    model = row.network(RecurrentUNetConfig(**{**TINY, **row.sizes})).train()
    labels = torch.zeros(2, 16, 16, dtype=torch.long)
    labels[0, :8], labels[1, 4:], labels[1, :, 9:] = 1, 2, 3
    config = resolve(TrainConfig("pictograms", steps=1, **row.training))
    terms = compute_loss(model, torch.rand(2, 3, 16, 16), labels, count_classes(labels), config)
    terms["loss"].backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert ("coverage.weight" in trained) == (name not in ("no coverage in the ConvLSTM", "nothing is covered"))
    assert ("context.weight" in trained) == (name != "no context V")
    more = model.state_dict().keys() - RecurrentUNet().state_dict().keys()
    assert more == {"mask + γ · attention": {"gamma"}, "ConvLSTM reads E as well": {"reduce_embedding.weight"}}.get(
        name, set()
    )


def test_a_class_may_be_named_again_without_suppression() -> None:
    for name, distinct in (("as it ships", True), ("no suppression of named classes", False)):
        torch.manual_seed(0)
        model = ROWS[name].network(RecurrentUNetConfig(**TINY)).eval()
        with torch.inference_mode():
            found = model(torch.rand(1, 3, 16, 16), torch.tensor([3])).classes.argmax(dim=1)
        assert (len(set(found.tolist())) == 3) == distinct, name


def test_what_is_done_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "images"
    write_dataset(images, 3, ablation.SEED, val_fraction=0, progress=False)
    found = one_run(tmp_path, "as it ships", 0, 1, "pictograms-dense", images, limit=2)
    assert found["seed"] == 0 and 0 <= found["miou"] <= 1
    monkeypatch.setattr(ablation, "Trainer", None)
    assert one_run(tmp_path, "as it ships", 0, 1, "pictograms-dense", images, None) == json.loads(json.dumps(found))


@pytest.mark.parametrize(("start", "share"), [("pictograms-dense", 0.0), ("none", 0.5)])
def test_a_row_starts_from_known_pixels_or_from_random_weights(start: str, share: float, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_dataset(images, 2, ablation.SEED, val_fraction=0, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "finish", lambda trainer, *_: {"trainer": trainer})
        trainer = one_run(tmp_path, "as it ships", 0, 1, start, images, None)["trainer"]
    assert trainer.config.pixels_first == share
    assert trainer.out.parent == tmp_path / start  # what one start has found is not taken for the other's
    known = load("pictograms-dense").state_dict()["classifier.weight"]
    assert torch.equal(trainer.model.classifier.weight, known) == (start != "none")


def test_a_row_is_summed_up_by_mean_and_range() -> None:
    runs = [{"seed": seed} | dict.fromkeys(ablation.SCORES, value) for seed, value in enumerate((0.5, 0.7, 0.6))]
    row = summary(runs)
    assert row["runs"] == runs and row["mean"]["miou"] == pytest.approx(0.6) and row["range"]["miou"] == [0.5, 0.7]


def test_a_small_training_set_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECSEG_SMALL", "1")
    monkeypatch.setattr("sys.argv", ["ablation", "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit, match="RECSEG_SMALL"):
        ablation.main()
    assert not (tmp_path / "work").exists()
