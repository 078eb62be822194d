"""What `recseg data …` does: draw, fetch, pack."""

import argparse
import shlex
import sys
from pathlib import Path

from recseg.errors import RecsegError
from recseg.files import check_folder, check_writable


def pictograms(arguments: argparse.Namespace) -> None:
    """`recseg data pictograms`."""
    from recseg.data.pictograms import write_dataset

    check_folder(arguments.out, "--out")
    write_dataset(arguments.out, arguments.images, arguments.seed)
    print(f"{arguments.out}: {arguments.images} pictures (seed {arguments.seed})")
    print(f"train on them with: recseg train --data {shlex.quote(str(arguments.out))} --out runs/mine")


def voc(arguments: argparse.Namespace) -> None:
    """`recseg data voc`."""
    from recseg.data.download import fetch_voc
    from recseg.resources import cache_dir

    root = arguments.root or cache_dir() / "voc"
    check_folder(root, "--root")
    fetch_voc(root)
    print(f"{root}: PASCAL VOC 2012 is here")
    if arguments.root is not None:
        print(f"let recseg find it with: export RECSEG_VOC_ROOT={shlex.quote(str(root.resolve()))}")


def pack(arguments: argparse.Namespace) -> None:
    """`recseg data pack`."""
    from recseg.data import open_train
    from recseg.data.pack import SUFFIX, PackedFolder, fingerprint, pack_bytes, packed_shapes, write_pack

    out: Path = arguments.out
    if out.suffix != SUFFIX:
        raise RecsegError(f"--out {out}: expected a name that ends in {SUFFIX}")
    check_writable(out)
    source = open_train(arguments.data, arguments.split)
    if isinstance(source, PackedFolder):
        raise RecsegError(f"--data {arguments.data}: is a pack already; pack what it was made of")
    if out.exists():
        old = PackedFolder(out)
        if old.size == arguments.size and old.header["fingerprint"] == fingerprint(source):
            print(f"{out}: is up to date")
            return
    shapes = packed_shapes(source, arguments.size)
    print(f"{out}: {len(source)} pictures of {source.split}, {pack_bytes(shapes) / 1e6:,.0f} MB", flush=True)
    write_pack(source, out, arguments.size, progress=sys.stderr.isatty())
    print(f"train on it with: recseg train --data {shlex.quote(str(out))} --out runs/mine")
