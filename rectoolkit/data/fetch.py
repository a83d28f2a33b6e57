"""Fetch: download, unpack and verify the files of a card, and put them where loading looks for them.

A download is written to ``FILE.part``. An interrupted download resumes (HTTP Range) if the server still has the same
file (``If-Range`` with the ETag or date it sent before, kept in ``FILE.part.tag``); otherwise it starts over. The
checksum is compared before a file takes its name. If the card has no checksum, the data is read and its counts are
compared. Of an archive, only the file that the card names is read and written under the card's own file name, so no
path within an archive is ever used.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rectoolkit import __version__
from rectoolkit.data.card import BINARY, CARD
from rectoolkit.data.catalog import cache_folder, load_card
from rectoolkit.errors import DataError
from rectoolkit.files import alone, atomic_write, file_digest, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rectoolkit.data.card import Card, Checksum

    Watcher = Callable[[str, int, int], None]  # file, bytes so far, bytes in total (0 if unknown)

TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 18
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # faults of this machine, not of the network


def fetch(card: Card, into: str | Path = "", watcher: Watcher | None = None) -> dict[Path, str]:
    """Download the card's files to ``into``/NAME, by default in the cache. Returns each file's sha256.

    Correct files that exist already are kept. Raises DataError if the card has no address, if the network or the
    server fails, or if a file is not what the card describes. A partial download is kept for the next try.
    """
    named = {part: name for part, name in card.files.named().items() if not part.endswith("_ids")}
    urls = card.urls.named()
    if card.planted or card.format == BINARY:
        raise DataError(
            f"the data set '{card.name}' is {'generated' if card.planted else 'imported'}: there is nothing to fetch"
        )
    if missing := [part for part in named if part not in urls]:
        raise DataError(
            f"the card {card.path} has no address for {', '.join(missing)}; download the files by hand: "
            f"{card.source or 'it names no source'}; put them into {cache_folder() / card.name}"
        )
    folder = card.path.parent if card.path.name == CARD else (Path(into) if into else cache_folder()) / card.name
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, f"{folder}: another process is downloading into it; wait for it, or stop it"):
        return _fetch(card, named, urls, folder, watcher)


def _fetch(
    card: Card, named: Mapping[str, str], urls: Mapping[str, str], folder: Path, watcher: Watcher | None
) -> dict[Path, str]:
    found, unsure, new = {}, [], []
    for part, name in named.items():
        expected = card.checksum(part)
        target = folder / name
        if not expected:
            unsure.append(target)
        if not (target.is_file() and not (expected and expected.fault(target))):
            _get(urls[part], target, expected, watcher)
            new.append(target)
        found[target] = file_digest(target)
    for archive in folder.glob("*.archive"):
        archive.unlink()
    if unsure:
        _read_through(card, folder, unsure, new)
    return found


def _read_through(card: Card, folder: Path, unsure: list[Path], new: list[Path]) -> None:
    """Raise DataError if the files are not the card's data. Of the ``unsure`` files, the ``new`` ones are removed."""
    try:
        load_card(card, folder)
    except DataError as error:
        removed = [file for file in unsure if file in new]
        for file in removed:
            file.unlink()
        names = " and ".join(map(str, removed or unsure))
        what = f"removed {names}; fetch" if removed else f"delete {names} and fetch"
        raise DataError(f"{error}. The card has no checksum to verify the files: {what} again") from None


def _get(url: str, target: Path, expected: Checksum | None, watcher: Watcher | None) -> None:
    address, _, member = url.partition("#")
    packed = bool(member) or address.endswith(".gz")
    ending = re.sub(r"[^A-Za-z0-9.]+", "-", address.rpartition("/")[2])  # the digest distinguishes addresses
    named = f"{ending}-{hashlib.sha256(address.encode()).hexdigest()[:8]}.archive"
    download = target.parent / named if packed else target
    if not (packed and download.is_file()):
        part = download.with_name(download.name + ".part")
        _download(address, part, watcher)
        if not packed:
            _check(part, expected, address)
        os.replace(part, download)
        part.with_name(part.name + ".tag").unlink(missing_ok=True)
    if packed:
        try:
            with _member(download, member) as source, atomic_write(target) as file:
                shutil.copyfileobj(source, file, BLOCK)
        except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, KeyError) as error:
            download.unlink()
            raise DataError(f"{address}: cannot be unpacked ({error}); fetch again, or download it by hand") from None
        try:
            _check(target, expected, url)
        except DataError:
            download.unlink()
            raise


def _download(address: str, part: Path, watcher: Watcher | None) -> None:
    """Download ``address`` to ``part``, or resume if the server's file is still the same."""
    tag = part.with_name(part.name + ".tag")
    known = tag.read_text(encoding="utf-8") if tag.is_file() else ""
    done = part.stat().st_size if part.is_file() and known else 0
    request = urllib.request.Request(address, headers={"User-Agent": f"rectoolkit/{__version__}"})
    if done:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", known)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            begins = re.match(rf"bytes {done}-", answer.headers.get("Content-Range") or "")
            resumed = answer.status == 206 and begins is not None
            if answer.status == 206 and not resumed:
                raise DataError(f"{address}: the server sent another range than requested; delete {part}")
            done = done if resumed else 0
            total = done + int(answer.headers.get("Content-Length") or -done)
            validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            if not resumed:
                part.unlink(missing_ok=True)
                if validator and not validator.startswith("W/"):  # a weak tag does not identify the bytes
                    write_text(tag, validator)
            with open(part, "ab") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                    done += len(block)
                    if watcher:
                        watcher(part.name.removesuffix(".part"), done, total)
                file.flush()
                os.fsync(file.fileno())
            if total and done < total:
                raise DataError(f"{address}: interrupted after {done} of {total} bytes; run the same command to resume")
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # no bytes follow: the download is complete, or of another file
            tag.unlink(missing_ok=True)
            whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range") or "")
            if whole and int(whole[1]) != done:
                part.unlink()
                raise DataError(
                    f"{address}: the file has {whole[1]} bytes now, but {done} bytes were downloaded; fetch again"
                ) from None
            return
        raise DataError(f"{address}: the server answered {error.code} {error.reason}; see the card's source") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK:
            raise OSError(error.errno, error.strerror, str(part)) from None
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{address}: cannot be reached ({reason}); run the same command again to resume") from None


def _check(path: Path, expected: Checksum | None, address: str) -> None:
    if expected and (fault := expected.fault(path)):
        path.unlink()
        path.with_name(path.name + ".tag").unlink(missing_ok=True)
        raise DataError(
            f"{address}: {fault} as the card says; the file was damaged in transit, or is another version. "
            "It was removed: fetch again, or see the card's source"
        )


@contextmanager
def _member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """One file within an archive as a stream. A ``.gz`` of one file has no member name."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed, packed.open(member) as file:
            yield file
    elif not member:
        with gzip.open(archive) as unzipped:
            yield unzipped  # type: ignore[misc]
    else:
        with tarfile.open(archive) as tar:
            found: Any = tar.getmember(member)
            stream = tar.extractfile(found) if found.isfile() else None
            if stream is None:
                raise KeyError(f"{member} is not a file in it")
            with stream:
                yield stream
