"""Bringing the files of an origin here: by pip, npm, HTTPS or from Google Drive."""

from __future__ import annotations

import functools
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from haste.data.archives import check_room, disk_errors
from haste.data.registry import Origin
from haste.errors import DataError

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

BLOCK = 1 << 16
"""bytes written at once, and the most that a cut connection loses"""
BUSY = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses after which it is worth asking again"""
PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
TITLE = re.compile(rb"<title>([^<]{1,200})", re.IGNORECASE)
BY_HAND = "Fetch it in a browser and give it with: haste fetch NAME --from FILE"

Progress = Callable[[int, int], None]
"""bytes received, bytes in all (0: not known)"""


@dataclass(frozen=True)
class Patience:
    """When a download is given up."""

    timeout: float = 60.0
    """seconds without a byte"""
    attempts: int = 6
    """one after the other that bring nothing"""
    pause: float = 2.0
    """seconds before the second attempt, doubled for each that follows"""
    longest: float = 600.0
    """seconds that a server may ask for (Retry-After); the longest pause, too"""


class _AskAgain(Exception):
    """What went wrong may be over in a moment."""

    def __init__(self, reason: object, after: float | None = None) -> None:
        super().__init__(str(reason))
        self.after = after
        """seconds that the server asks for"""


def download(
    origin: Origin, folder: Path, progress: Progress | None = None, patience: Patience | None = None
) -> None:
    """Put an origin's archive, or the members of its folder, into `folder`, under the names it gives.

    What a cut download has left in `folder` is resumed. Raises DataError.
    """
    progress, patience = progress or (lambda *_: None), patience or Patience()
    log.info("downloading %s", origin)
    if origin.via in ("pip", "npm"):
        _download_package(origin, folder)
        return
    get = (
        _download_from_drive
        if origin.via == "drive"
        else functools.partial(_download_file, size=origin.size)
    )
    files = origin.members if origin.is_folder else {origin.archive: ""}
    for name, path in files.items():
        url, target = origin.url + path, folder / name
        if not target.is_file():
            get(url, target, progress, patience)
            _refuse_page(url, target)


def _download_package(origin: Origin, folder: Path) -> None:
    """Let pip or npm, each with its own settings, do it."""
    if origin.via == "pip":
        command = _pip_command(origin, folder)
    else:
        command = [shutil.which("npm") or "npm", "pack", f"{origin.package}@{origin.version}"]
        command += ["--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DataError(f"{command[0]} could not be started ({error.strerror}).") from error
    if done.returncode:
        message = " / ".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise DataError(f"{origin.via} failed with exit code {done.returncode}: {message}")


def _pip_command(origin: Origin, folder: Path) -> list[str]:
    # pip runs a source package's own build code to read its metadata; with the hash in the
    # requirement it checks the file first
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{origin.package}=={origin.version} --hash=sha256:{origin.sha256}\n", encoding="utf-8"
    )
    kind = "--only-binary" if origin.file.endswith(".whl") else "--no-binary"
    return [
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"),
        *(kind, origin.package, "--require-hashes", "--requirement", str(requirements)),
        *("--dest", str(folder)),
    ]


def _download_file(
    url: str, target: Path, progress: Progress, patience: Patience, *, size: int
) -> None:
    """`size`: of the file in bytes, no more of which is received; 0: not known."""
    import requests

    partial = target.with_name(f"{target.name}.part")

    def attempt() -> None:
        try:
            _receive(session, url, partial, progress, patience.timeout, size)
        except requests.exceptions.SSLError as error:
            raise DataError(f"{url}: {error}") from error
        except requests.exceptions.RequestException as error:
            raise _AskAgain(_short(error)) from error

    with requests.Session() as session:
        _patiently(url, attempt, lambda: _size(partial), patience)
    _tag(partial).unlink(missing_ok=True)
    partial.replace(target)


def _receive(
    session: requests.Session,
    url: str,
    partial: Path,
    progress: Progress,
    timeout: float,
    size: int,
) -> None:
    """One request: the whole file, or what `partial` lacks if it is still the same file."""
    headers = {"Accept-Encoding": "identity"}
    begin = _size(partial) if _tag(partial).is_file() else 0
    if begin:
        tag = _tag(partial).read_text(encoding="utf-8")
        headers |= {"Range": f"bytes={begin}-", "If-Range": tag}
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        _check_answer(url, response)
        sent_from, total = _extent(response)
        if response.status_code == 416 or sent_from not in (0, begin):
            partial.unlink(missing_ok=True)
            raise _AskAgain(f"asked for the bytes from {begin} on, sent others")
        _check_size(url, partial, total, size)
        check_room(partial.parent, total - sent_from)
        # the file as it lies there: some servers call the compression of a .gz an encoding of theirs
        response.raw.headers.pop("Content-Encoding", None)
        # only a strong tag says that the bytes are the same
        tag = response.headers.get("ETag", "W/")
        tag = response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag
        if tag:
            _tag(partial).write_text(tag, encoding="utf-8")
        else:
            _tag(partial).unlink(missing_ok=True)
        with disk_errors(partial), partial.open("ab" if sent_from else "wb") as file:
            for block in response.iter_content(BLOCK):
                file.write(block)
                progress(file.tell(), total)
                _check_size(url, partial, file.tell(), size)
    if total and _size(partial) != total:
        raise _AskAgain(f"cut after {_size(partial)} of {total} bytes")


def _check_answer(url: str, response: requests.Response) -> None:
    for step in (*response.history, response):
        if url.startswith("https:") and not step.url.startswith("https:"):
            raise DataError(f"{url}: leads to {step.url}, which is not encrypted; refused.")
    status = f"HTTP {response.status_code} {response.reason}"
    if response.status_code in BUSY:
        raise _AskAgain(status, _asked_for(response))
    if response.status_code not in (200, 206, 416):
        raise DataError(
            f"{url}: {status}. What was there is gone or not public: correct it in datasets.yaml, or "
            "give a copy of yours with: haste fetch NAME --from FILE"
        )


def _check_size(url: str, partial: Path, sent: int, size: int) -> None:
    """Refuse more than is known to be there, before all of it has come."""
    if size and sent > size:
        partial.unlink(missing_ok=True)
        _tag(partial).unlink(missing_ok=True)
        raise DataError(
            f"{url}: sends {sent} bytes or more, and {size} are expected. What is offered has changed: compare it "
            "with datasets.yaml."
        )


def _extent(response: requests.Response) -> tuple[int, int]:
    """The first byte sent and the bytes of the whole file; -1 and 0 where the server does not say."""
    if response.status_code == 206:
        match = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        return (int(match[1]), int(match[2])) if match else (-1, 0)
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(r"[0-9]+", length) else 0


def _asked_for(response: requests.Response) -> float | None:
    from urllib3 import Retry
    from urllib3.exceptions import InvalidHeader

    try:
        return Retry().parse_retry_after(response.headers["Retry-After"])
    except (KeyError, InvalidHeader):
        return None


def _download_from_drive(url: str, target: Path, progress: Progress, patience: Patience) -> None:
    import gdown
    import requests
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    def attempt() -> None:
        try:
            with disk_errors(target):
                gdown.download(
                    url=url,
                    output=str(target),
                    quiet=True,
                    use_cookies=False,
                    resume=True,
                    progress=lambda received, total: progress(received, total or 0),
                    timeout=patience.timeout,
                )
        except FileURLRetrievalError as error:
            raise DataError(
                f"{url}: Google Drive gives no file: {_short(error)} Its quota for a file is "
                f"shared by all who fetch it: try again tomorrow. {BY_HAND}"
            ) from error
        except DownloadError as error:
            if "byte range" in str(error):  # what has been received cannot be resumed
                for path in partials():
                    path.unlink()
            raise _AskAgain(_short(error)) from error
        except requests.exceptions.HTTPError as error:
            if error.response is not None:
                _check_answer(url, error.response)
            raise
        except requests.exceptions.RequestException as error:
            raise _AskAgain(_short(error)) from error

    def partials() -> list[Path]:
        # gdown chooses the rest of their names
        return list(target.parent.glob(f"{target.name}*.part"))

    _patiently(url, attempt, lambda: sum(map(_size, partials())), patience)


def _patiently(
    url: str, attempt: Callable[[], None], received: Callable[[], int], patience: Patience
) -> None:
    """Call `attempt` until it does not ask for another; one that brought bytes counts anew."""
    failed, before = 0, received()
    while True:
        try:
            attempt()
            return
        except _AskAgain as error:
            failed = 1 if received() > before else failed + 1
            before = received()
            pause = min(patience.pause * 2 ** (failed - 1), patience.longest)
            if error.after is not None:
                pause = max(pause, error.after)
            if failed >= patience.attempts or pause > patience.longest:
                waits = f", and asks to wait {pause:.0f} s" if error.after == pause else ""
                raise DataError(
                    f"{url}: {error} (attempt {failed}{waits}). Run again later; it resumes from the "
                    f"{before} bytes received."
                ) from error
            log.warning("%s: %s; asking again in %.0f s", url, error, pause)
            time.sleep(pause)


def _refuse_page(url: str, path: Path) -> None:
    """A page that says why there is no file must not be taken for the file."""
    with path.open("rb") as stream:
        start = stream.read(1 << 16)
    if PAGE.match(start):
        title = TITLE.search(start)
        shown = title[1].decode("utf-8", "replace").strip() if title else "no title"
        path.unlink()
        raise DataError(f"{url}: a web page ({shown}) instead of the file. {BY_HAND}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _tag(partial: Path) -> Path:
    """Beside a partial file: by what the server knows whether it is still the same."""
    return partial.with_name(f"{partial.name}.tag")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
