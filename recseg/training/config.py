"""What a training is: the data, the model, the budget. One dataclass, stored as JSON in the run's folder."""

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
FEWEST = 100  # updates between two validations, unless `val_every` says otherwise: a short trial run is left alone
_POSITIVE = (
    "minutes", "steps", "batch_size", "lr", "max_steps", "clip", "checkpoint_seconds", "val_every", "val_limit",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Everything that `train` needs. None means: `resolve` chooses, by the encoder and the data.

    Attributes:
        data: "pictograms", "voc", or a folder in VOC's layout.
        split: list to train on; for VOC "train_aug" where it exists.
        model: "recurrent", "dense" (the dense baseline) or "published" (the published network).
        minutes: wall-clock budget of the steps. Either this or `steps`.
        steps: number of updates.
        seed: of the initial weights, the order of the images and their augmentation.
        network: what to build; left out, with `init`, what that is. A dense network takes from it what both share
            (`UNetConfig`); its `num_classes` and `max_steps` are those of the data.
        init: trained weights to start from: a published name, a .safetensors file or the folder of a run. What fits is
            copied, classifier rows by the names of the classes: see `recseg.training.initial`.
        encoder_weights: safetensors file of a torchvision or timm classifier to start from.
        pretrained: fetch torchvision's or timm's own weights instead.
        freeze: encoder stages, from the finest, that keep their weights; None freezes two of an encoder that is
            pretrained, or not plain and that of `init`.
        order: of the targets: "matched" (each step learns the one that fits it best), "class" or "area".
        max_steps: the most classes of an image; None takes 5, or the most that an image of the folder has.
        size: side of the square training crops, in pixels.
        image_size: short side that images are resized to for prediction.
        scale: range of the random resize: a crop shows between 1/scale[1] and 1/scale[0] of the image's short side.
        flip: mirror half of the crops; not for classes that have a left and a right.
        colour_jitter: how far brightness, contrast and saturation move: 0.4 is factors of 0.6 to 1.4, 0 none.
        augmentation: name of the caller's own, which `train` notes and `resume` asks for again.
        balance: draw images with rare classes more often: see `recseg.data.stream.rarity_weights`.
        pixels_first: share of the budget in which the recurrent network only learns to classify single pixels, as the
            dense baseline does. The steps name classes with that same classifier, and learn faster once it is trained.
        optimiser: "muon" (for the weights between features, with AdamW for all others) or "adamw".
        lr: peak learning rate; a pretrained encoder that is not plain gets a tenth of it.
        ema: decay of the averaged weights.
        amp: "auto" uses 16 bits where the hardware is fast at them; "off", "bf16" or "fp16" insist.
        compile: run encoder and decoder as programs that `torch.compile` writes, in training; validations do without.
        checkpoint_seconds: of training between two checkpoints.
        on_bad_image: "stop" ends the training at an image that cannot be read; "skip" lists it and takes another one.
        val_split: list that the averaged network is scored on during the training; None takes "val" where there is one,
            unless the training list is "trainval"; "none" takes none. Nothing that is learned depends on it.
        val_every: updates between two validations; None: a tenth of the budget, and 100 updates at least.
        val_limit: the most images of a validation, spread evenly over the list; None takes 500.
        tensorboard: write the log in TensorBoard's format too, into the run's folder `tensorboard`.
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
    """Fill in what was left open. Plain encoders learn from scratch on small images, the others on photographs.

    Images are predicted a sixth larger than the crops: there things have the size that they have in most crops, and
    edges more pixels (measured on images that are neither trained on nor reported).
    """
    defaults: dict[str, Any]
    if config.init and config.network is TrainConfig.network:  # the default itself: it was left out
        from recseg.training.initial import network_of

        config = replace(config, network=network_of(config.init))
    if config.model == "published":  # as its authors trained it: Adam 1e-3, batch 32, 256×256, fixed by its class head
        defaults = {"size": 256, "image_size": config.size or 256, "batch_size": 32, "lr": 1e-3, "scale": (0.5, 1.2)}
    elif config.network.encoder == "plain":
        size = config.size or 64
        defaults = {"size": size, "batch_size": 16, "lr": 3e-3, "scale": (0.8, 1.3)}
        defaults["image_size"] = max(16, 16 * round(size * 7 / 6 / 16))  # whole cells of the coarsest map
    else:
        size = config.size or 192
        defaults = {"size": size, "batch_size": 16, "lr": 2e-3, "scale": (0.75, 2.0)}
        defaults["image_size"] = max(32, 32 * round(size * 7 / 6 / 32))
    if config.minutes is None and config.steps is None:
        defaults["minutes"] = 20.0
    if config.steps is not None:  # with `minutes` the loop looks at the clock
        defaults["val_every"] = validation_every(config.steps)
    defaults["val_limit"] = 500
    defaults["pixels_first"] = 0.5
    defaults["optimiser"] = "adamw" if config.model == "published" else "muon"
    defaults["freeze"] = 2 if config.has_pretrained_encoder and config.model != "published" else 0
    return replace(config, **{name: value for name, value in defaults.items() if getattr(config, name) is None})


def validation_every(steps: int) -> int:
    """Updates between two validations of a budget of so many, unless they are given."""
    return max(FEWEST, -(-steps // 10))


def used_up(config: TrainConfig, step: int, seconds: float) -> float:
    """Share of the budget that so many updates, or so many seconds, are."""
    if config.steps is not None:
        return step / config.steps
    assert config.minutes is not None  # resolved
    return seconds / (60 * config.minutes)


def network_for(config: TrainConfig, dataset: "SegmentationFolder") -> RecurrentUNetConfig:
    """The network's configuration, with the classes of the data, and as many steps as an image of it has classes."""
    from recseg.classes import VOC_CLASSES

    steps = config.max_steps
    if steps is None and dataset.classes == VOC_CLASSES:
        steps = 5
    elif steps is None:
        steps = max(1, dataset.survey(skip=config.on_bad_image == "skip").most_classes)
    return replace(config.network, num_classes=dataset.num_classes, max_steps=steps)


def with_whole_paths(config: TrainConfig) -> TrainConfig:
    """A configuration that means the same in any working folder.

    Raises:
        RecsegError: its data are not there.
    """
    from recseg.weights.registry import published_weights

    if config.data in NAMED:
        data = config.data
    else:
        data = str(Path(config.data).expanduser().absolute())
        if not Path(data).exists():
            raise RecsegError(f"{data}: not there; a run whose data have moved goes on with --data")
    weights = config.encoder_weights and str(Path(config.encoder_weights).expanduser().absolute())
    init = config.init  # a published name wins over a file, and stays what it is
    if init and Path(init).exists() and init not in [entry["name"] for entry in published_weights()]:
        init = str(Path(init).absolute())
    return replace(config, data=data, encoder_weights=weights, init=init)


def build_model(config: TrainConfig, *, start: bool = True) -> "SegmentationModel":
    """The untrained network that a (resolved) configuration describes.

    Args:
        config: of the training.
        start: read the weights that the encoder starts from; a run that goes on has all weights in its checkpoint.
    """
    # Imported here: the command line reads its choices from this module, and does not wait for torch.
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
    """Refuse a batch that has fewer images than processes, or too few numbers for a norm."""
    from recseg.distributed import shard, world_size

    batch_size, size = config.batch_size or 0, config.size or 0
    if batch_size < world_size():
        raise RecsegError(f"batch_size {batch_size}: expected one for each of {world_size()} processes")
    encoder: Any = getattr(model, "encoder", None)
    cells = 2 if encoder is None else -(-size // encoder.strides[-1])  # along a side of the coarsest map
    if len(shard(batch_size)) * cells**2 < 2:  # a norm over one number has no variance
        raise RecsegError(f"batch_size {batch_size} with size {size}: too small for the norms, expected more of one")


def save_config(path: Path, config: TrainConfig, *, new: bool = False) -> None:
    """Write a run's config.json; with `new`, it is refused where another process has written one."""
    try:
        with atomic_write(path, new=new) as temporary:
            temporary.write_text(json.dumps(asdict(config), indent=2) + "\n")
    except FileExistsError as error:
        raise RecsegError(f"{path.parent}: another training has just begun there; expected a new folder") from error


def load_config(path: Path) -> TrainConfig:
    """Read a run's config.json back.

    Raises:
        RecsegError: missing, not JSON, or with fields that no training has.
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
    """JSON knows lists only."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
