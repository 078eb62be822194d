"""`recseg data`: check, draw, fetch or pack a data set."""

import argparse
import shlex
import sys
from pathlib import Path

from recseg.cli.arguments import folder, natural, positive, share, side
from recseg.cli.command import DATA_HELP, Commands, command
from recseg.data.annotations import FORMATS
from recseg.errors import RecsegError, counted
from recseg.files import check_folder, check_writable
from recseg.training.config import ON_BAD_IMAGE


def add(commands: Commands) -> None:
    """The arguments of `recseg data`."""
    text = "Check, make or fetch a data set.\n\nexample: recseg data check my_images"
    parser = command(commands, "data", text=text)
    kinds = parser.add_subparsers(title="data sets", metavar="SET", required=True)
    option = command(kinds, "pictograms", pictograms).add_argument
    option("--out", type=folder, required=True, metavar="DIR", help="folder to write; must be new or empty")
    option("--images", type=positive, required=True, metavar="N", help="number of images")
    option("--seed", type=natural, default=0, metavar="S", help="same seed, same images (default 0)")
    option = command(kinds, "voc", voc).add_argument
    option("--root", type=folder, metavar="DIR", help="folder to put VOCdevkit in (default: a cache)")
    option = command(kinds, "pack", pack).add_argument
    option("--data", required=True, help=DATA_HELP)
    option("--split", help="split to pack (default train; voc: train_aug if present)")
    option("--size", type=side, required=True, metavar="PIXELS", help="short side; smaller images are kept as they are")
    option("--out", type=Path, required=True, metavar="FILE", help="must end in .pack")
    option = command(kinds, "check", check).add_argument
    option("folder", metavar="DIR", help="in VOC's layout")
    option("--sheet", type=Path, metavar="FILE", help="draw images, their masks and the classes as a PNG")
    option = command(kinds, "import", import_).add_argument
    option("source", type=Path, metavar="SRC", help="the unpacked export: a folder, or its JSON or XML file")
    option("--format", required=True, choices=FORMATS, help="see below")
    option("--out", type=folder, required=True, metavar="DIR", help="folder to write; must be new or empty")
    option(
        "--val-fraction", type=share, metavar="F", help="share of val images, if the export lists none (default 0.2)"
    )
    option("--seed", type=natural, default=0, metavar="S", help="same seed, same val list (default 0)")
    option("--drop-empty", action="store_true", help="leave out images without shapes (else: all background)")
    option("--on-bad-image", choices=ON_BAD_IMAGE, default="stop", help="for missing or unusable images (default stop)")


def pictograms(arguments: argparse.Namespace) -> None:
    """Draw any number of pictograms, a data set with VOC's layout and labels.

    example: recseg data pictograms --out data/mine --images 2000 --seed 1
    """
    from recseg.data.pictograms import write_dataset

    check_folder(arguments.out, "--out")
    write_dataset(arguments.out, arguments.images, arguments.seed)
    print(f"{arguments.out}: {counted(arguments.images, 'image')} (seed {arguments.seed})")
    print(f"train on them with: recseg train --data {shlex.quote(str(arguments.out))} --out runs/mine")


def voc(arguments: argparse.Namespace) -> None:
    """Download PASCAL VOC 2012 (2 GB), resuming where it stopped, and verify its checksum.

    example: recseg data voc --root ~/data/voc && export RECSEG_VOC_ROOT=~/data/voc
    """
    from recseg.data.download import fetch_voc
    from recseg.resources import cache_dir

    root = arguments.root or cache_dir() / "voc"
    check_folder(root, "--root")
    fetch_voc(root)
    print(f"{root}: PASCAL VOC 2012 is here")
    if arguments.root is not None:
        print(f"let recseg find it with: export RECSEG_VOC_ROOT={shlex.quote(str(root.resolve()))}")


def pack(arguments: argparse.Namespace) -> None:
    """Decode and resize a split once, into one file that trains faster.

    example: recseg data pack --data voc --size 256 --out voc-256.pack && recseg train --data voc-256.pack
    """
    from recseg.data import open_train
    from recseg.data.check import examine
    from recseg.data.pack import SUFFIX, PackedFolder, fingerprint, pack_bytes, packed_shapes, write_pack

    out: Path = arguments.out
    if out.suffix != SUFFIX:
        raise RecsegError(f"--out {out}: expected a name that ends in {SUFFIX}")
    source = open_train(arguments.data, arguments.split)
    check_writable(out, reads=source.files)
    if isinstance(source, PackedFolder):
        raise RecsegError(f"--data {arguments.data}: is already a pack; give the data that it was made from")
    if out.exists():
        old = PackedFolder(out)
        if old.size == arguments.size and old.header["fingerprint"] == fingerprint(source):
            print(f"{out}: is up to date")
            return
    if arguments.data not in ("pictograms", "voc"):  # a pack keeps only labels, so problems can be found only now
        print("\n".join(examine(source, None)), flush=True)
    shapes = packed_shapes(source, arguments.size)
    print(f"{out}: {counted(len(source), 'image')} of {source.split}, {pack_bytes(shapes) / 1e6:,.0f} MB", flush=True)
    write_pack(source, out, arguments.size, progress=sys.stderr.isatty())
    print(f"train on it with: recseg train --data {shlex.quote(str(out))} --out runs/mine")


def import_(arguments: argparse.Namespace) -> None:
    """Convert an annotation tool's export to a folder in VOC's layout.

    formats:
      coco      JSON with polygons or RLE: COCO, CVAT, Roboflow, Label Studio ("COCO with images")
      labelme   a folder with a JSON file for each image
      cvat      XML, "CVAT for images 1.1"
      masks     images, masks, and what their values or colours mean: CVAT ("Segmentation mask 1.1", labelmap.txt),
                Roboflow (_classes.csv), labelme2voc (class_names.txt), class_dict.csv, classes.txt; or, in black and
                white, a folder masks/NAME for each class
    Where shapes overlap, the smaller is in front; in CVAT's XML, a larger z_order takes precedence.

    example: recseg data import export.json --format coco --out my_images && recseg data check my_images
    """
    from recseg.data.annotations import read_export
    from recseg.data.annotations.write import write_folder
    from recseg.files import check_new_folder

    check_new_folder(arguments.out, "--out")
    report = write_folder(
        read_export(arguments.source.expanduser(), arguments.format),
        arguments.out,
        val_fraction=arguments.val_fraction,
        seed=arguments.seed,
        drop_empty=arguments.drop_empty,
        skip=arguments.on_bad_image == "skip",
        progress=sys.stderr.isatty(),
    )
    print("\n".join(report.lines()))
    print(f"look at it with: recseg data check {shlex.quote(str(arguments.out))} --sheet sheet.png")


def check(arguments: argparse.Namespace) -> None:
    """Summarise a folder, and list faults and likely mistakes.

    example: recseg data check my_images --sheet sheet.png
    """
    from recseg.data.check import between, faults, hints, image_faults, named, summary
    from recseg.data.folder import SegmentationFolder, find_root, splits

    root = find_root(Path(arguments.folder).expanduser())
    lists = list(splits(root)) or ["train"]
    # The splits that training uses by default; all splits if there are none of these.
    names = [name for name in ("train", "val") if name in lists] or lists
    chosen = [SegmentationFolder(root, name) for name in names]
    if arguments.sheet is not None:
        check_writable(arguments.sheet, reads=[file for dataset in chosen for file in dataset.files])
    wrong = list[str]()
    for dataset in chosen:
        survey = dataset.survey(skip=True)
        print(summary(dataset, survey)[0])
        for label in range(dataset.num_classes):
            if dataset.legend.values[label] is not None:
                count = f"{survey.images[label]:7} images {survey.shares[label]:7.2%}"
                print(f"  {named(dataset.legend, label):<32}{count}")
        wrong += [*faults(dataset, survey), *image_faults(dataset, survey)]
        if survey.unreadable:
            count = counted(len(survey.unreadable), "mask")
            wrong.append(f"{count} cannot be read: {next(iter(survey.unreadable.values()))}")
    faulty, doubtful = between(root, chosen)
    wrong += faulty
    for hint in [*hints(chosen[0], chosen[0].survey(skip=True)), *doubtful]:
        print(f"check: {hint}")
    if arguments.sheet is not None:
        from recseg.files import atomic_write
        from recseg.viz.sheet import contact_sheet

        with atomic_write(arguments.sheet) as temporary:
            contact_sheet(chosen[0]).save(temporary, format="PNG")
        print(f"written: {arguments.sheet}")
    for fault in wrong:
        print(f"fault: {fault}")
    if wrong:
        raise RecsegError(f"{root}: {counted(len(wrong), 'fault')} that a training would refuse, see above")
    print("nothing that a training would refuse")
