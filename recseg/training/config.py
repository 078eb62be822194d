"""The configuration of a training run: data, model, budget. One dataclass, stored as JSON in the run's folder."""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recseg.data import NAMED
from recseg.errors import RecsegError
from recseg.files import atomic_write
from recseg.models.config import RecurrentUNetConfig, UNetConfig

if TYPE_CHECKING:
    from recseg.data.folder import SegmentationFolder
    from recseg.models.model import SegmentationModel

MODELS = ("recurrent", "dense", "published")
OPTIMISERS = ("muon", "adamw")
ORDERS = ("matched", "class", "area")  # of `recseg.training.targets.to_sequence`
AMP = ("auto", "off", "bf16", "fp16")
ON_BAD_IMAGE = ("stop", "skip")
_CHOICES = {"model": MODELS, "amp": AMP, "on_bad_image": ON_BAD_IMAGE, "order": ORDERS, "optimiser": OPTIMISERS}
FEWEST = 100  # fewest updates between validations unless `val_every` is set, so that a short trial run has none
_POSITIVE = (
    "minutes", "steps", "batch_size", "lr", "max_steps", "clip", "checkpoint_seconds", "val_every", "val_limit",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training run. Where a field is None, `resolve` chooses, depending on the encoder and the data.

    Attributes:
        data: "pictograms", "voc", or a folder in VOC's layout.
        split: list to train on; for VOC "train_aug" where it exists.
        model: "recurrent", "dense" (the dense baseline) or "published" (the published network).
        minutes: time budget of the updates, in minutes; set either this or `steps`.
        steps: number of updates.
        seed: of the initial weights, the order of the images and their augmentation.
        network: the architecture; if it is left out and `init` is given, that of `init`. A dense network uses only the
            fields of `UNetConfig`; `num_classes` and `max_steps` are set from the data.
        init: trained weights to start from: a published name, a .safetensors file or the folder of a run. Tensors that
            fit are copied, classifier rows by class name: see `recseg.training.initial`.
        encoder_weights: safetensors file of a torchvision or timm classifier to initialise the encoder from.
        pretrained: download torchvision's or timm's own weights instead.
        freeze: number of encoder stages to freeze, finest first; None freezes two if `has_pretrained_encoder`, except
            in the published network.
        order: of the targets: "matched" (each step learns the one that fits it best), "class" or "area".
        max_steps: maximum number of classes in an image; None takes 5 with VOC's classes, else the maximum in the data.
        size: side of the square training crops, in pixels.
        image_size: short side that images are resized to for prediction.
        scale: range of the random resize: a crop shows between 1/scale[1] and 1/scale[0] of the image's short side.
        flip: mirror half of the crops; not for classes that differ only in left and right.
        colour_jitter: strength of the brightness, contrast and saturation jitter: 0.4 is factors of 0.6 to 1.4, 0 none.
        augmentation: name of the caller's own augmentation; `train` records it, and `resume` requires the same one.
        balance: sample images with rare classes more often: see `recseg.data.stream.rarity_weights`.
        pixels_first: initial share of the budget in which the recurrent network is trained as a per-pixel classifier
            only, like the dense baseline. The steps use the same classifier and learn faster once it is trained.
        optimiser: "muon" (for the hidden weights, with AdamW for all others) or "adamw".
        lr: peak learning rate; the encoder gets a tenth of it if `has_pretrained_encoder`.
        ema: decay of the averaged weights.
        amp: mixed precision: "auto" uses 16 bits where the hardware is fast at them; "off", "bf16" and "fp16" force it.
        compile: run encoder and decoder through `torch.compile` in training; validation runs without it.
        checkpoint_seconds: time between checkpoints.
        on_bad_image: "stop" ends the run at an image that cannot be read; "skip" records it and draws another one.
        val_split: list that the averaged network is scored on during training; None takes "val" if it exists, unless
            the training list is "trainval"; "none" turns validation off. It does not affect what is learned.
        val_every: updates between validations; None: a tenth of the budget, but at least 100 updates.
        val_limit: maximum number of validation images, spread evenly over the list; None takes 500.
        tensorboard: also write the log in TensorBoard's format, to the run's `tensorboard` folder.
    """

    data: str
    model: str = "recurrent"
    split: str | None = None
    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    network: RecurrentUNetConfig = RecurrentUNetConfig()
    init: str | None = None
    encoder_weights: str | None = None
    pretrained: bool = False
    freeze: int | None = None
    order: str = "matched"
    max_steps: int | None = None
    pixels_first: float | None = None
    size: int | None = None
    image_size: int | None = None
    scale: tuple[float, float] | None = None
    flip: bool = True
    colour_jitter: float = 0.4
    augmentation: str | None = None
    balance: bool = False
    batch_size: int | None = None
    optimiser: str | None = None
    lr: float | None = None
    weight_decay: float = 0.02
    warmup: int = 100
    clip: float = 5.0
    ema: float = 0.998
    workers: int | None = None
    device: str | None = None
    amp: str = "auto"
    compile: bool = False
    checkpoint_seconds: float = 120.0
    on_bad_image: str = "stop"
    val_split: str | None = None
    val_every: int | None = None
    val_limit: int | None = None
    tensorboard: bool = False

    @property
    def has_pretrained_encoder(self) -> bool:
        """Whether the encoder starts from pretrained weights: ImageNet's, or an `init` whose encoder is not plain."""
        return bool(self.encoder_weights or self.pretrained or (self.init and self.network.encoder != "plain"))

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices and not (name == "optimiser" and value is None):
                raise RecsegError(f"{name} {value!r}: expected one of {', '.join(choices)}")
        if self.minutes is not None and self.steps is not None:
            raise RecsegError("--minutes and --steps: expected one of them, not both")
        for name in ("size", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise RecsegError(f"{name} {value}: expected 2 pixels or more")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecsegError(f"{name} {value}: expected a positive number")
        shares = {"pixels_first": self.pixels_first or 0.0, "colour_jitter": self.colour_jitter, "ema": self.ema}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise RecsegError(f"{name} {share}: expected a share from 0 to below 1")
        if self.freeze is not None and not 0 <= self.freeze <= 5:
            raise RecsegError(f"freeze {self.freeze}: expected a number of encoder stages, 0 to 5")
        if self.init and (self.encoder_weights or self.pretrained):
            raise RecsegError("--init: has an encoder's weights, so --encoder-weights and --pretrained do not apply")
        if self.freeze and not (self.init or self.encoder_weights or self.pretrained):
            raise RecsegError(f"freeze {self.freeze}: expected --init, --encoder-weights or --pretrained with it")
        for name in ("seed", "weight_decay", "warmup"):
            if getattr(self, name) < 0:
                raise RecsegError(f"{name} {getattr(self, name)}: expected 0 or more")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise RecsegError(f"scale {self.scale}: expected two numbers above 0, the smaller one first")


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill in the fields that are None. Plain encoders get defaults for small images, the others for photographs.

    For prediction, images are resized to a sixth more than the crop size: objects then have the size that they have in
    most crops, and edges have more pixels (measured on images used neither for training nor for reported scores).
    """
    defaults: dict[str, Any]
    if config.init and config.network is TrainConfig.network:  # the default object itself: it was left out
        from recseg.training.initial import network_of

        config = replace(config, network=network_of(config.init))
    if config.model == "published":  # as its authors trained it: Adam 1e-3, batch 32, 256×256, fixed by its class head
        defaults = {"size": 256, "image_size": config.size or 256, "batch_size": 32, "lr": 1e-3, "scale": (0.5, 1.2)}
    elif config.network.encoder == "plain":
        size = config.size or 64
        defaults = {"size": size, "batch_size": 16, "lr": 3e-3, "scale": (0.8, 1.3)}
        defaults["image_size"] = max(16, 16 * round(size * 7 / 6 / 16))  # a multiple of the deepest stride
    else:
        size = config.size or 192
        defaults = {"size": size, "batch_size": 16, "lr": 2e-3, "scale": (0.75, 2.0)}
        defaults["image_size"] = max(32, 32 * round(size * 7 / 6 / 32))
    if config.minutes is None and config.steps is None:
        defaults["minutes"] = 20.0
    if config.steps is not None:  # with `minutes`, the loop goes by the clock
        defaults["val_every"] = validation_every(config.steps)
    defaults["val_limit"] = 500
    defaults["pixels_first"] = 0.5
    defaults["optimiser"] = "adamw" if config.model == "published" else "muon"
    defaults["freeze"] = 2 if config.has_pretrained_encoder and config.model != "published" else 0
    return replace(config, **{name: value for name, value in defaults.items() if getattr(config, name) is None})


def validation_every(steps: int) -> int:
    """Default number of updates between validations for a budget of `steps` updates."""
    return max(FEWEST, -(-steps // 10))


def used_up(config: TrainConfig, step: int, seconds: float) -> float:
    """Share of the budget that `step` updates, or `seconds` seconds, use up."""
    if config.steps is not None:
        return step / config.steps
    assert config.minutes is not None  # resolved
    return seconds / (60 * config.minutes)


def network_for(config: TrainConfig, dataset: "SegmentationFolder") -> RecurrentUNetConfig:
    """The network's configuration, with `num_classes` and `max_steps` set from the data."""
    from recseg.classes import VOC_CLASSES

    steps = config.max_steps
    if steps is None and dataset.classes == VOC_CLASSES:
        steps = 5
    elif steps is None:
        steps = max(1, dataset.survey(skip=config.on_bad_image == "skip").most_classes)
    return replace(config.network, num_classes=dataset.num_classes, max_steps=steps)


def with_whole_paths(config: TrainConfig) -> TrainConfig:
    """The configuration with absolute paths, so that it is valid in any working directory.

    Raises:
        RecsegError: the data do not exist.
    """
    from recseg.weights.registry import published_weights

    if config.data in NAMED:
        data = config.data
    else:
        data = str(Path(config.data).expanduser().absolute())
        if not Path(data).exists():
            raise RecsegError(f"{data}: does not exist; if the data have moved, give their new place with --data")
    weights = config.encoder_weights and str(Path(config.encoder_weights).expanduser().absolute())
    init = config.init  # a published name takes precedence over a file and is kept as it is
    if init and Path(init).exists() and init not in [entry["name"] for entry in published_weights()]:
        init = str(Path(init).absolute())
    return replace(config, data=data, encoder_weights=weights, init=init)


def build_model(config: TrainConfig, *, start: bool = True) -> "SegmentationModel":
    """The untrained network that a (resolved) configuration describes.

    Args:
        config: of the run.
        start: load the encoder's pretrained weights; not needed to resume, since the checkpoint has all weights.
    """
    # Imported here: the command line reads its choices from this module and should not have to import torch.
    from recseg.models.baseline import PublishedConfig, PublishedNetwork
    from recseg.models.encoders import load_encoder_weights
    from recseg.models.recurrent_unet import RecurrentUNet
    from recseg.models.unet import UNet

    network = config.network
    if config.model == "published":
        size = config.size or 256
        return PublishedNetwork(PublishedConfig(network.num_classes, network.max_steps, input_size=size))
    model: UNet | RecurrentUNet
    if config.model == "dense":
        model = UNet(UNetConfig(**{field.name: getattr(network, field.name) for field in fields(UNetConfig)}))
    else:
        model = RecurrentUNet(network)
    if start and (config.encoder_weights or config.pretrained):
        load_encoder_weights(model.encoder, config.encoder_weights)
    model.encoder.freeze(config.freeze or 0)
    return model


def check_batch(config: TrainConfig, model: "SegmentationModel") -> None:
    """Refuse a batch with fewer images than processes, or with too few values for batch norm."""
    from recseg.distributed import shard, world_size

    batch_size, size = config.batch_size or 0, config.size or 0
    if batch_size < world_size():
        raise RecsegError(f"batch_size {batch_size}: expected at least one image for each of {world_size()} processes")
    encoder: Any = getattr(model, "encoder", None)
    cells = 2 if encoder is None else -(-size // encoder.strides[-1])  # along a side of the coarsest map
    if len(shard(batch_size)) * cells**2 < 2:  # a single value has no variance
        raise RecsegError(f"batch_size {batch_size} with size {size}: too small for batch norm, increase either")


def save_config(path: Path, config: TrainConfig, *, new: bool = False) -> None:
    """Write a run's config.json; with `new`, fail if another process has already written one."""
    try:
        with atomic_write(path, new=new) as temporary:
            temporary.write_text(json.dumps(asdict(config), indent=2) + "\n")
    except FileExistsError as error:
        raise RecsegError(f"{path.parent}: another run has just started there; expected a new folder") from error


def load_config(path: Path) -> TrainConfig:
    """Read a run's config.json back.

    Raises:
        RecsegError: the file is missing, is not JSON or has unknown fields.
    """
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise RecsegError(f"{path}: no such file, expected the folder of a training run") from error
    except ValueError as error:
        raise RecsegError(f"{path}: not JSON ({error})") from error
    known = {field.name for field in fields(TrainConfig)}
    if not isinstance(values, dict) or set(values) - known or "data" not in values:
        raise RecsegError(f"{path}: not the configuration of a training run")
    values = _with_tuples(values)
    if "network" in values:
        values["network"] = RecurrentUNetConfig(**_with_tuples(values["network"]))
    return TrainConfig(**values)


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Turn lists into tuples, which JSON does not have."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
