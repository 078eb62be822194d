"""Unpacks tar files; if any member is a link or its path leads out of the folder, nothing is unpacked."""

import tarfile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from recseg.errors import RecsegError


def extract_tar(archive: Path, folder: Path) -> None:
    """Unpack plain files and folders into `folder`; all members are checked before the first file is written.

    Raises:
        RecsegError: a member is a link, a device or a sparse file, or its path leads out of `folder`; or the archive is
            not a complete tar file.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            members = tar.getmembers()
            for member in members:
                path = PurePosixPath(member.name)
                # Windows' separators and drives too: a plain name on one system is a path on another.
                if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name.split("/")[0]:
                    raise RecsegError(f"{archive}: holds {member.name!r}, which leads out of the folder; not unpacked")
                if not (member.isreg() or member.isdir()):
                    raise RecsegError(f"{archive}: holds {member.name!r}, a link or device; not unpacked")
                if member.issparse():  # a few bytes can unpack to any size
                    raise RecsegError(f"{archive}: holds {member.name!r}, a sparse file; not unpacked")
            for member in tqdm(members, desc="unpack", unit="file", disable=None):
                if hasattr(tarfile, "data_filter"):  # absent before Python 3.11.4; the checks above suffice
                    tar.extract(member, folder, filter="data")
                else:
                    tar.extract(member, folder)
    except RecsegError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise RecsegError(f"{archive}: is not a tar file that can be read ({error})") from error
