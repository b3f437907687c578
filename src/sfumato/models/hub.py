"""Models by Hugging Face id: fetched into the hub's own cache, after which they are ordinary diffusers folders.

An interrupted download goes on where it stopped. Weights are checked once against the sha256 the hub gives them: in
its cache a large file is kept under that hash as its name.
"""

import io
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog

from sfumato.core.errors import ModelLoadFailed
from sfumato.models.hashing import HashCache

logger = structlog.get_logger(__name__)

Progress = Callable[[int, int], None]
"""Takes the bytes had and the bytes known to be needed, which grow as files are begun; called from several threads."""

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Folders of the diffusers layout only: the top of a repository often holds the same weights again as single files.
_ALLOWED = ("model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors")
_IGNORED = ("safety_checker/*", "*.fp16.*", "*.non_ema.*")
_SECONDS_BETWEEN_LINES = 10.0


def is_hub_id(text: str) -> bool:
    """Say whether a text has the form of a Hugging Face id, `owner/name`."""
    return _ID.fullmatch(text) is not None and not text.startswith(".")


def fetch(hub_id: str, hashes: HashCache, progress: Progress | None = None) -> Path:
    """Return the local folder of a hub model, downloading what is missing (never pickles).

    Raises `ModelLoadFailed` when there is no such model, it is gated, a file came damaged, or the hub cannot be
    reached and the model is not in the cache.
    """
    from huggingface_hub import snapshot_download  # takes half a second to import; most installations never need it

    try:
        folder = snapshot_download(
            hub_id,
            allow_patterns=list(_ALLOWED),
            ignore_patterns=list(_IGNORED),
            tqdm_class=_bar_class(progress or _log_lines(hub_id)),
        )
    except Exception as error:  # its own errors, OSError, ValueError, and those of whichever HTTP client it uses
        raise ModelLoadFailed(
            f"{hub_id} is no file or folder here and could not be fetched from Hugging Face ({_reason(error)}).",
            hint="Check the spelling and the network, or give the path of a copy on this machine.",
        ) from error
    _check_weights(hub_id, Path(folder), hashes)
    return Path(folder)


def cached() -> Iterator[tuple[str, Path]]:
    """Yield id and folder of every model in the hub's cache on this machine, without the network."""
    for repository in sorted(_cache_folder().glob("models--*--*")):
        hub_id = repository.name.removeprefix("models--").replace("--", "/", 1)
        try:
            revision = (repository / "refs" / "main").read_text().strip()
        except (OSError, ValueError):
            continue
        folder = repository / "snapshots" / revision
        if is_hub_id(hub_id) and folder.is_dir():
            yield hub_id, folder


def _cache_folder() -> Path:
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def _check_weights(hub_id: str, folder: Path, hashes: HashCache) -> None:
    """Compare weights with the hash they are kept under; a damaged file is removed, so that it is fetched again."""
    for link in sorted(folder.rglob("*.safetensors")):
        blob = link.resolve()
        if _SHA256.fullmatch(blob.name) and hashes.compute(blob) != blob.name:
            link.unlink()
            blob.unlink(missing_ok=True)
            raise ModelLoadFailed(
                f"{link.name} of {hub_id} was damaged on its way here: its sha256 is another than the hub says.",
                hint="Try again: the file is fetched anew.",
            )


def _bar_class(progress: Progress) -> type:
    """Return what the hub's client takes for its progress bars; the one that counts bytes on disk reports."""
    from tqdm.std import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # untyped
        monitor_interval = 0  # no thread of its own

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> None:
            if self.unit == "B" and self.desc.startswith("Reconstruct"):
                progress(int(self.n), int(max(self.total or 0, self.n)))

    return Bar


def _log_lines(hub_id: str) -> Progress:
    """Return a progress that writes a line to the log now and then."""
    last = time.monotonic()

    def tell(done_bytes: int, total_bytes: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info("downloading a model", model=hub_id, megabytes=done_bytes // 10**6, of=total_bytes // 10**6)

    return tell


def _reason(error: Exception) -> str:
    reasons = {
        "GatedRepoError": "access must be granted on its page first",
        "RepositoryNotFoundError": "no public model of this id",
        "LocalEntryNotFoundError": "the hub cannot be reached and nothing is cached",
        "OfflineModeIsEnabled": "offline mode is on and nothing is cached",
    }
    name = type(error).__name__
    return reasons.get(name, name)
