"""What tests/test_distributed.py starts in two processes: one update, and one evaluation, written to a file."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from recseg.data.folder import SegmentationFolder
from recseg.data.stream import batches
from recseg.distributed import data_parallel, process_group, rank, shard, world_size
from recseg.evaluation.evaluate import evaluate
from recseg.training.config import TrainConfig, resolve
from recseg.training.train import training_data
from recseg.training.trainer import Trainer
from recseg.weights.io import load


class Apart(torch.nn.Module):
    """Each process has a gradient that the others lack; one weight has a gradient in none, and one is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.nobodys, self.frozen = (torch.nn.Parameter(torch.ones(2, 1)) for _ in range(4))
        self.frozen.requires_grad = False

    def forward(self, factor: float) -> torch.Tensor:
        return factor * ((self.second if rank() else self.first) * self.frozen).sum()


def main(data: str, weights: str, out: str) -> None:
    config = TrainConfig(data=data, size=32, image_size=32, batch_size=4, workers=0, seed=3, steps=4, device="cpu")
    with process_group("cpu"):
        config = resolve(config)
        for done in (0.0, 1.0):  # single pixels, then the whole loss
            trainer = Trainer(config, training_data(config), Path(out))
            for module in trainer.model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()  # each process has its own statistics on a CPU; here they shall not differ
            batch = next(batches(trainer.dataset, 4, seed=3, part=shard(4)))
            trainer.objective(*trainer.on_device(batch), batch.lengths, done)["loss"].backward()
            found = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
            if rank() == 0:
                save_file({name: grad.contiguous() for name, grad in found.items()}, f"{out}-{done:.0f}.safetensors")
        if world_size() > 1:
            parallel = data_parallel(apart := Apart())
            parallel(4.0).backward()
            assert apart.first.grad is not None and apart.first.grad.tolist() == [[2.0], [2.0]]
            assert apart.second.grad is not None and apart.second.grad.tolist() == [[2.0], [2.0]]
            assert apart.nobodys.grad is None and apart.frozen.grad is None
        scores = evaluate(load(weights), SegmentationFolder(data, "val"), batch_size=1, progress=False)
        if rank() == 0:
            del scores["seconds"]
            Path(f"{out}.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    # Python's lock changes hands only where it must: a group that is taken down while one of its threads waits for the
    # lock hangs in most runs then, instead of now and then.
    sys.setswitchinterval(1000)
    main(*sys.argv[1:])
