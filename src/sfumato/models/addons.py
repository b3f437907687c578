"""The LoRAs and embeddings of an installation: found by name in the folders that the settings give.

Reads headers, and no weights but to hash them. Folders are looked through when first asked for, and again by `refresh`.
"""

import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sfumato.core.errors import ModelLoadFailed
from sfumato.core.models import ModelInfo
from sfumato.core.requests import AddOn
from sfumato.models import families, layout
from sfumato.models.hashing import CACHE_NAME, HashCache
from sfumato.models.layout import Kind
from sfumato.models.safetensors_header import Header, read_header
from sfumato.settings import Settings

_OTHER_EMBEDDINGS = frozenset({".png", ".webp"})
_NO_ALIASES = frozenset({"none", "addams"})  # what trainers write when nobody chose a name
_HASH = re.compile(r"[0-9a-f]{12,64}")
_SHORT = 12

_TOKEN_WIDTHS = {"builtin": frozenset[int](), "sd1": {768}, "sd2": {1024}, "sdxl": {768, 1280}, "sdxl-refiner": {1280}}
"""Widths of the vectors that stand for a token, by family."""


@dataclass(frozen=True, kw_only=True)
class AddOnFile:
    """An installed LoRA or embedding: `name` is its file's stem, `alias` another name it goes by."""

    name: str
    alias: str
    location: str
    header: Header

    @property
    def metadata(self) -> dict[str, str]:
        """What its trainer wrote about it."""
        return self.header.metadata

    @property
    def widths(self) -> frozenset[int]:
        """The widths of its vectors, if it is an embedding."""
        return frozenset(shape[-1] for shape in self.header.shapes.values() if shape)

    @property
    def vectors(self) -> int:
        """How many vectors it has, if it is an embedding."""
        return max((shape[0] if len(shape) > 1 else 1) for shape in self.header.shapes.values())

    def fits(self, model: ModelInfo) -> bool:
        """Say whether, as an embedding, it is made for a model's family."""
        widths = _TOKEN_WIDTHS.get(model.family.value)
        return widths is None or (bool(widths) and widths == self.widths)


@dataclass(frozen=True)
class Shelf:
    """Files of one kind by name, and why others are not among them, by stem."""

    files: Mapping[str, AddOnFile] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    def find(self, word: str) -> AddOnFile | None:
        """Return the file of a name, or of an alias that only one file has; else the same in any case."""
        if word in self.files:
            return self.files[word]
        for is_it in (lambda file: file.alias == word, lambda file: word.casefold() in _names(file)):
            found = [file for file in self.files.values() if is_it(file)]
            if len(found) == 1:
                return found[0]
        return None

    def locations(self, add_ons: Iterable[AddOn]) -> dict[str, str]:
        """Return where the files lie of those add-ons that are still installed, by name."""
        return {each.name: self.files[each.name].location for each in add_ons if each.name in self.files}

    def named_in(self, text: str) -> list[AddOnFile]:
        """Return the files whose names stand in a text, as words, in any case."""
        words = " ".join(text.lower().split())
        return [file for name, file in self.files.items() if _mentions(words, " ".join(name.lower().split()))]


class AddOnRegistry:
    """All LoRAs and embeddings installed."""

    def __init__(
        self, lora_folders: Iterable[Path] = (), embedding_folders: Iterable[Path] = (), hashes: HashCache | None = None
    ) -> None:
        self._folders = (tuple(lora_folders), tuple(embedding_folders))
        self._hashes = hashes
        self._lock = threading.Lock()
        self._found: tuple[Shelf, Shelf] | None = None

    @classmethod
    def of(cls, settings: Settings, hashes: HashCache | None = None) -> Self:
        """Return what the settings name: their own folders, and those of a program's model folders.

        Raises `ModelLoadFailed` when a folder named explicitly is none.
        """
        return cls(
            _folders(settings, "lora_dir", Kind.LORA),
            _folders(settings, "embeddings_dir", Kind.EMBEDDING),
            hashes or HashCache(settings.data_dir / CACHE_NAME),
        )

    @property
    def loras(self) -> Shelf:
        """The LoRAs."""
        return self._shelves()[0]

    @property
    def embeddings(self) -> Shelf:
        """The embeddings."""
        return self._shelves()[1]

    def refresh(self) -> None:
        """Look through the folders again."""
        found = (_scan(self._folders[0], frozenset()), _scan(self._folders[1], _OTHER_EMBEDDINGS))
        with self._lock:
            self._found = found

    def lora_hash(self, file: AddOnFile) -> str:
        """Return 12 hex digits: of the hash its trainer wrote down, or else of its weights'."""
        written = file.metadata.get("sshs_model_hash", "").lower()
        return (written if _HASH.fullmatch(written) else self._sha256(file, payload_only=True))[:_SHORT]

    def embedding_hash(self, file: AddOnFile) -> str:
        """Return the first 12 hex digits of the file's sha256."""
        return self._sha256(file, payload_only=False)[:_SHORT]

    def _sha256(self, file: AddOnFile, *, payload_only: bool) -> str:
        if self._hashes is None:
            return "0" * 64
        with self._lock:
            return self._hashes.compute(Path(file.location), payload_only=payload_only)

    def _shelves(self) -> tuple[Shelf, Shelf]:
        if self._found is None:
            self.refresh()
        assert self._found is not None
        return self._found


def _folders(settings: Settings, setting: str, kind: Kind) -> list[Path]:
    named: Path | None = getattr(settings, setting)
    if named is not None and not named.is_dir():
        raise ModelLoadFailed(f"{setting} {named} is not a folder.")
    folders = [named] if named is not None else []
    if settings.models_dir is not None:
        folders += layout.folders_of(kind, settings.models_dir)
    if settings.extra_model_paths is not None:
        folders += layout.read_extra_paths(settings.extra_model_paths).get(kind, [])
    return folders


def _scan(folders: Iterable[Path], others: frozenset[str]) -> Shelf:
    files: dict[str, AddOnFile] = {}
    skipped: dict[str, str] = {}
    for root in folders:
        for path in _candidates(root, others):
            try:
                found = _read(root, path)
            except ModelLoadFailed as error:
                skipped[path.stem] = error.message
                continue
            if found.name in files:
                skipped[path.stem] = f"{path.name} is in two folders; the first is used."
            else:
                files[found.name] = found
    return Shelf(files, {stem: reason for stem, reason in skipped.items() if stem not in files})


def _read(root: Path, path: Path) -> AddOnFile:
    """Read a file's header. Raises `ModelLoadFailed` for pickles, pictures, damaged files and links that lead out."""
    families.refuse_pickle(path)
    if path.suffix != families.SAFETENSORS:
        raise ModelLoadFailed(f"{path.name} is a picture; only .safetensors files are read.")
    if not path.resolve().is_relative_to(root.resolve()):
        raise ModelLoadFailed(f"{path.name} is a link that leads out of its folder.")
    header = read_header(path)
    alias = header.metadata.get("ss_output_name", "").strip()
    return AddOnFile(
        name=path.stem,
        alias=alias if alias and alias.casefold() not in _NO_ALIASES else path.stem,
        location=str(path.absolute()),
        header=header,
    )


def _candidates(root: Path, others: frozenset[str]) -> Iterator[Path]:
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            ending = Path(name).suffix.lower()
            if ending == families.SAFETENSORS or ending in families.PICKLES or ending in others:
                yield Path(place) / name


def _names(file: AddOnFile) -> set[str]:
    return {file.name.casefold(), file.alias.casefold()}


def _mentions(text: str, name: str) -> bool:
    """Say whether a name stands in a text, not as a part of a longer word."""
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if not _join(text[start - 1 : start], name[:1]) and not _join(name[-1:], text[end : end + 1]):
            return True
        start = text.find(name, start + 1)
    return False


def _join(left: str, right: str) -> bool:
    return left.isalpha() and right.isalpha()
