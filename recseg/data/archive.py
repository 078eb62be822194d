"""Unpacks tar files, every member judged first: where one leads out of the folder or is a link, nothing is unpacked."""

import tarfile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from recseg.errors import RecsegError


def extract_tar(archive: Path, folder: Path) -> None:
    """Unpack plain files and folders into `folder`; every name is judged before the first file is written.

    Raises:
        RecsegError: a member is a link, a device or a file with holes, or its path leads out of `folder`; or it is no
            whole tar file.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            members = tar.getmembers()
            for member in members:
                path = PurePosixPath(member.name)
                # Windows' separators and drives too: a plain name on one system leads out on another.
                if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name.split("/")[0]:
                    raise RecsegError(f"{archive}: holds {member.name!r}, which leads out of the folder; not unpacked")
                if not (member.isreg() or member.isdir()):
                    raise RecsegError(f"{archive}: holds {member.name!r}, a link or device; not unpacked")
                if member.issparse():  # a few bytes that would unpack to any size
                    raise RecsegError(f"{archive}: holds {member.name!r}, a file with holes; not unpacked")
            for member in tqdm(members, desc="unpack", unit="file", disable=None):
                if hasattr(tarfile, "data_filter"):  # absent before Python 3.11.4; the checks above do without it
                    tar.extract(member, folder, filter="data")
                else:
                    tar.extract(member, folder)
    except RecsegError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise RecsegError(f"{archive}: is not a tar file that can be read ({error})") from error
