"""The models an installation has, found once at start: the built-in one, those named one by one, and a folder's.

Reads names, headers and JSON in the locations the settings give and nowhere else. A model named explicitly must be
good or the scan fails; what is unfit in `models_dir` is left out and listed with its reason.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from uuid import UUID

from sfumato.core.errors import ModelLoadFailed, UnknownModel
from sfumato.core.ids import derived_id
from sfumato.core.models import Family, ModelInfo
from sfumato.models import families, hub
from sfumato.models.hashing import CACHE_NAME, HashCache
from sfumato.settings import Settings

BUILTIN_NAME = "sfumato-builtin"
_MAX_ECHO = 200  # characters of an unknown name that an error repeats


@dataclass(frozen=True, kw_only=True)
class SkippedModel:
    """A file or folder of `models_dir` that is not served, and why."""

    location: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ModelRegistry:
    """All installed models; `default` serves requests that name none."""

    models: tuple[ModelInfo, ...]
    default: ModelInfo
    skipped: tuple[SkippedModel, ...] = ()
    _by_word: dict[str, ModelInfo] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_word", _index(self.models))

    @classmethod
    def scan(cls, settings: Settings, *, compute_hashes: bool = False) -> Self:
        """Find and identify all models the settings name; the first of `settings.model` is the default.

        Files named one by one are hashed (once: see `hashing`). Files of `models_dir` are hashed only with
        `compute_hashes`, as a large folder takes minutes; until then a remembered hash is used, or none.
        Raises `ModelLoadFailed` when a model named explicitly cannot be used.
        """
        scanner = _Scanner(HashCache(settings.data_dir / CACHE_NAME), compute_hashes)
        named = [scanner.named(text) for text in settings.model]
        found, skipped = [_builtin(), *named], list[SkippedModel]()
        for each in scanner.folder(settings.models_dir) if settings.models_dir else ():
            if isinstance(each, SkippedModel):
                skipped.append(each)
            else:
                found.append(each)
        models = _unique(found)
        preferred = Path((named or found)[0].location).resolve()
        default = next(model for model in models if Path(model.location).resolve() == preferred)
        return cls(models=models, default=default, skipped=tuple(skipped))

    def by_id(self, model_id: UUID) -> ModelInfo:
        """Return the model of this id; raise `UnknownModel`."""
        for model in self.models:
            if model.id == model_id:
                return model
        raise UnknownModel(f"There is no model with id {model_id}.", field="model_id")

    def find(self, text: str) -> ModelInfo:
        """Return a model by name, title with or without its hash, file name, stem, hash or id, in any case.

        Raises `UnknownModel`.
        """
        wanted = text.strip().casefold()
        model = self._by_word.get(wanted) or self._by_word.get(_without_hash(wanted))
        if model is None:
            names = ", ".join(model.name for model in self.models)
            raise UnknownModel(
                f"There is no model named {text[:_MAX_ECHO]!r}.", field="model", hint=f"One of: {names}."
            )
        return model


class _Scanner:
    """Turns locations into `ModelInfo`s."""

    def __init__(self, hashes: HashCache, compute_hashes: bool) -> None:
        self._hashes = hashes
        self._compute_hashes = compute_hashes

    def named(self, text: str) -> ModelInfo:
        """Identify a location somebody gave: a diffusers folder, a .safetensors file or a Hugging Face id."""
        path = Path(text).expanduser()
        if path.is_dir():
            return _folder_model(path, path.resolve().name)
        if path.is_file():
            return self._file_model(path, path.name, compute_hash=True)
        families.refuse_pickle(path)
        if hub.is_hub_id(text) and path.suffix != families.SAFETENSORS:
            return _folder_model(hub.fetch(text), text, name=text.partition("/")[2])
        raise ModelLoadFailed(
            f"{text} is neither a file nor a folder.", hint="Give a .safetensors file, a diffusers folder or an id."
        )

    def folder(self, root: Path) -> Iterator[ModelInfo | SkippedModel]:
        """Identify everything in `models_dir`, names in order; raise `ModelLoadFailed` when it is no folder."""
        if not root.is_dir():
            raise ModelLoadFailed(f"models_dir {root} is not a folder.")
        for path in _candidates(root):
            name = path.relative_to(root).as_posix()
            try:
                _require_inside(root, path)
                if path.is_dir():
                    yield _folder_model(path, name)
                else:
                    yield self._file_model(path, name, compute_hash=self._compute_hashes)
            except ModelLoadFailed as error:
                yield SkippedModel(location=name, reason=error.message)

    def _file_model(self, path: Path, file_name: str, *, compute_hash: bool) -> ModelInfo:
        family = families.family_of_file(path)
        resolved = path.resolve()
        sha256 = self._hashes.compute(resolved) if compute_hash else self._hashes.known(resolved)
        title = f"{file_name} [{sha256[:10]}]" if sha256 else file_name
        name = file_name.removesuffix(path.suffix).replace("/", "_")
        return _info(name, title, family, path, sha256)


def _builtin() -> ModelInfo:
    folder = Path(__file__).parents[1] / "builtin"
    return _info(BUILTIN_NAME, BUILTIN_NAME, Family.BUILTIN, folder, None)


def _folder_model(path: Path, title: str, *, name: str | None = None) -> ModelInfo:
    return _info(name or title.replace("/", "_"), title, families.family_of_folder(path), path, None)


def _info(name: str, title: str, family: Family, location: Path, sha256: str | None) -> ModelInfo:
    side = families.DEFAULT_SIDES[family]
    return ModelInfo(
        id=derived_id("model", name),
        name=name,
        title=title,
        family=family,
        location=str(location.absolute()),  # not resolved: what a link points to may have no ending
        sha256=sha256,
        default_width=side,
        default_height=side,
    )


def _unique(found: list[ModelInfo]) -> tuple[ModelInfo, ...]:
    """Keep the first of each location, and number a name that is taken, so that each has its own id."""
    locations: set[Path] = set()
    unique: dict[str, ModelInfo] = {}
    for model in found:
        resolved = Path(model.location).resolve()
        if resolved in locations:
            continue
        locations.add(resolved)
        name, number = model.name, 2
        while name.casefold() in unique:
            name, number = f"{model.name}-{number}", number + 1
        unique[name.casefold()] = replace(model, name=name, id=derived_id("model", name))
    return tuple(unique.values())


def _index(models: tuple[ModelInfo, ...]) -> dict[str, ModelInfo]:
    """Map every word a model answers to; names win over titles, titles over file names, and so on down."""
    index: dict[str, ModelInfo] = {}
    for words in zip(*(_words(model) for model in models), strict=True):
        for word, model in zip(words, models, strict=True):
            if word:
                index.setdefault(word.casefold(), model)
    return index


def _words(model: ModelInfo) -> tuple[str | None, ...]:
    bare = _without_hash(model.title)
    file_name = bare.rpartition("/")[2]
    stem = file_name.removesuffix(families.SAFETENSORS)
    return (
        model.name,
        model.title,
        bare,
        bare.removesuffix(families.SAFETENSORS),
        file_name,
        stem,
        model.short_hash,
        model.sha256,
        str(model.id),
    )


def _without_hash(title: str) -> str:
    head, bracket, tail = title.rpartition(" [")
    return head if bracket and tail.endswith("]") else title


def _candidates(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        folder = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if folder != root and families.is_model_folder(folder):
            folders.clear()
            yield folder
            continue
        for name in sorted(files):
            if Path(name).suffix == families.SAFETENSORS or Path(name).suffix.lower() in families.PICKLES:
                yield folder / name


def _require_inside(root: Path, path: Path) -> None:
    """Refuse what a link in `models_dir` would read from elsewhere."""
    base = root.resolve()
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if not each.resolve().is_relative_to(base):
            raise ModelLoadFailed(f"{each.name} is a link that leads out of models_dir.")
