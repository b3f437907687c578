"""The sha256 of model files, computed once: kept in a JSON file by path, size and time of last change."""

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from sfumato.core.errors import ModelLoadFailed

CACHE_NAME = "model-hashes.json"


class _Entry(msgspec.Struct, frozen=True):
    size_bytes: int
    mtime_ns: int
    sha256: str


class HashCache:
    """Remembers hashes between runs. A damaged or unwritable cache costs time, never an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = _read_entries(path)

    def known(self, file: Path) -> str | None:
        """Return the remembered sha256 in lower hex, or None when there is none for the file as it is now."""
        return self._known(str(file), file)

    def _known(self, name: str, file: Path) -> str | None:
        entry = self._entries.get(name)
        size_bytes, mtime_ns = _stamp(file)
        return entry.sha256 if entry and (entry.size_bytes, entry.mtime_ns) == (size_bytes, mtime_ns) else None

    def compute(self, file: Path, *, payload_only: bool = False) -> str:
        """Return the sha256 in lower hex, reading the file only when it is not known yet.

        `payload_only`: of what follows the header of a safetensors file. Raises `ModelLoadFailed` when the file
        cannot be read.
        """
        name = f"{file}#payload" if payload_only else str(file)
        if known := self._known(name, file):
            return known
        size_bytes, mtime_ns = _stamp(file)
        try:
            with file.open("rb") as stream:
                if payload_only:
                    stream.seek(int.from_bytes(stream.read(8), "little") + 8)
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(file, error) from None
        self._entries[name] = _Entry(size_bytes=size_bytes, mtime_ns=mtime_ns, sha256=sha256)
        self._save()
        return sha256

    def _save(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            with os.fdopen(handle, "wb") as stream:
                stream.write(msgspec.json.format(msgspec.json.encode(self._entries)))
            Path(name).replace(self._path)
        except OSError:
            return  # a read-only data folder: the next run computes again


def _read_entries(path: Path) -> dict[str, _Entry]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, _Entry])
    except (OSError, ValueError, RecursionError):
        return {}


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise _unreadable(file, error) from None
    return status.st_size, status.st_mtime_ns


def _unreadable(file: Path, error: OSError) -> ModelLoadFailed:
    return ModelLoadFailed(f"{file.name} cannot be read: {error.strerror or type(error).__name__}.")
