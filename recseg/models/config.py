"""Configurations of the networks. No torch here, since the command line reads its choices from this file."""

from dataclasses import dataclass

from recseg.errors import RecsegError

ENCODERS = ("plain", "mobilenet_v2", "resnet18", "resnet34")
TIMM = "timm:"  # prefix of timm's networks


def check_encoder_name(name: str) -> None:
    """Refuse an unknown encoder name; timm's names are checked when the encoder is built.

    Raises:
        RecsegError: not one of `ENCODERS`, nor "timm:NAME".
    """
    if name not in ENCODERS and not name.startswith(TIMM):
        raise RecsegError(f"encoder {name!r}: expected one of {', '.join(ENCODERS)}, or timm:NAME")


@dataclass(frozen=True)
class UNetConfig:
    """Configuration of a U-Net, the dense baseline.

    Attributes:
        num_classes: labels, background included.
        encoder: one of `ENCODERS`, or "timm:NAME".
        encoder_widths: channels of each stage of the plain encoder (stage k has stride 2**k); ignored by the others.
        decoder_widths: channels after each decoder block, coarse to fine. Each block doubles the resolution, so their
            number sets the output's stride: 3 blocks give 1/2 with five plain stages, 1/4 with a torchvision encoder.
            Default: (96, 64, 40) with the plain encoder, (160, 96, 64) with the others.
    """

    num_classes: int = 21
    encoder: str = "plain"
    encoder_widths: tuple[int, ...] = (16, 32, 64, 128, 192)
    decoder_widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.decoder_widths:
            object.__setattr__(self, "decoder_widths", (96, 64, 40) if self.encoder == "plain" else (160, 96, 64))
        check_encoder_name(self.encoder)
        if self.num_classes < 2:
            raise RecsegError(f"num_classes {self.num_classes}: expected at least 2, background and one class")
        if not self.encoder.startswith(TIMM):  # only timm knows how many features they have
            levels = len(self.encoder_widths) if self.encoder == "plain" else 5
            if len(self.decoder_widths) >= levels:
                raise RecsegError(f"decoder_widths {self.decoder_widths}: expected 1 to {levels - 1} blocks")


@dataclass(frozen=True)
class RecurrentUNetConfig(UNetConfig):
    """Configuration of a recurrent U-Net: the fields of the dense baseline, and those of the recurrence.

    Attributes:
        hidden: channels of the hidden state and of the cell state.
        reduced: channels of x, to which the bottleneck features are reduced.
        max_steps: maximum number of steps, and so of classes found in one image.
    """

    hidden: int = 64
    reduced: int = 64
    max_steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "reduced", "max_steps"):
            if getattr(self, name) < 1:
                raise RecsegError(f"{name} {getattr(self, name)}: expected at least 1")
