"""From locations to models and VAEs: what lies at a place, identified by its header or its JSON."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import ModelLoadFailed
from sfumato.core.ids import derived_id
from sfumato.core.models import Family, ModelInfo, VaeInfo
from sfumato.models import families, hub, layout
from sfumato.models.hashing import HashCache
from sfumato.models.layout import Kind
from sfumato.settings import Settings


@dataclass(frozen=True, kw_only=True)
class SkippedModel:
    """A file or folder that was found and is not served, and why."""

    location: str
    reason: str


Found = ModelInfo | VaeInfo | SkippedModel


class Scanner:
    """Turns locations into what there is at them."""

    def __init__(self, hashes: HashCache, *, compute_hashes: bool, progress: hub.Progress | None = None) -> None:
        self._hashes = hashes
        self._progress = progress
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
            return _folder_model(hub.fetch(text, self._hashes, self._progress), text, name=text.partition("/")[2])
        raise ModelLoadFailed(
            f"{text} is neither a file nor a folder.", hint="Give a .safetensors file, a diffusers folder or an id."
        )

    def everywhere(self, settings: Settings) -> Iterator[Found]:
        """Identify everything in the folders that the settings name; raise `ModelLoadFailed` if one is not there."""
        root = settings.models_dir
        if root is not None and not root.is_dir():
            raise ModelLoadFailed(f"models_dir {root} is not a folder.")
        places = [layout.folders_in(root)] if root else []
        if settings.extra_model_paths is not None:
            places.append(layout.read_extra_paths(settings.extra_model_paths))
        for folders in places:
            for folder in folders.get(Kind.CHECKPOINT, ()):
                yield from self._checkpoints(folder)
            for folder in folders.get(Kind.VAE, ()):
                yield from self._vaes(folder)
        if settings.scan_hub_cache:
            yield from self._hub_cache()

    def _checkpoints(self, root: Path) -> Iterator[Found]:
        for path in _candidates(root):
            name = path.relative_to(root).as_posix()
            yield from self._vetted(root, path, name, self._vae if _is_vae_name(path) else self._checkpoint)

    def _vaes(self, root: Path) -> Iterator[Found]:
        for path in _candidates(root):
            if path.is_file():
                yield from self._vetted(root, path, path.relative_to(root).as_posix(), self._vae)

    def _hub_cache(self) -> Iterator[Found]:
        for hub_id, folder in hub.cached():
            if families.is_model_folder(folder):
                try:
                    yield _folder_model(folder, hub_id, name=hub_id.partition("/")[2])
                except ModelLoadFailed as error:
                    yield SkippedModel(location=hub_id, reason=error.message)

    def _vetted(
        self, root: Path, path: Path, name: str, identify: Callable[[Path, str], ModelInfo | VaeInfo]
    ) -> Iterator[Found]:
        try:
            _require_inside(root, path)
            yield identify(path, name)
        except ModelLoadFailed as error:
            yield SkippedModel(location=name, reason=error.message)

    def _checkpoint(self, path: Path, name: str) -> ModelInfo:
        return _folder_model(path, name) if path.is_dir() else self._file_model(path, name)

    def _vae(self, path: Path, _name: str) -> VaeInfo:
        families.require_vae_file(path)
        return VaeInfo(name=path.name, location=str(path.absolute()), sha256=self._sha256(path))

    def _file_model(self, path: Path, file_name: str, *, compute_hash: bool = False) -> ModelInfo:
        family = families.family_of_file(path)
        sha256 = self._sha256(path, compute_hash=compute_hash)
        title = f"{file_name} [{sha256[:10]}]" if sha256 else file_name
        name = file_name.removesuffix(path.suffix).replace("/", "_")
        return model_info(name, title, family, path, sha256=sha256)

    def _sha256(self, path: Path, *, compute_hash: bool = False) -> str | None:
        file = path.resolve()
        return self._hashes.compute(file) if compute_hash or self._compute_hashes else self._hashes.known(file)


def model_info(
    name: str, title: str, family: Family, location: Path, *, sha256: str | None = None, side: int | None = None
) -> ModelInfo:
    """Return what is known of a model; its size in pixels is its family's unless `side` is given."""
    side = side or families.DEFAULT_SIDES[family]
    steps, guidance_scale = families.recommended_by_name(name)
    return ModelInfo(
        id=derived_id("model", name),
        name=name,
        title=title,
        family=family,
        location=str(location.absolute()),  # not resolved: what a link points to may have no ending
        sha256=sha256,
        default_width=side,
        default_height=side,
        default_steps=steps,
        default_guidance_scale=guidance_scale,
    )


def _folder_model(path: Path, title: str, *, name: str | None = None) -> ModelInfo:
    family = families.family_of_folder(path)
    side = families.side_of_folder(path, family)
    return model_info(name or title.replace("/", "_"), title, family, path, side=side)


def _is_vae_name(path: Path) -> bool:
    """Say whether a file beside checkpoints is one's VAE, as AUTOMATIC1111 tells: `name.vae.safetensors`."""
    return path.is_file() and path.name.casefold().endswith(f".vae{families.SAFETENSORS}")


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
    """Refuse what a link in a scanned folder would read from elsewhere."""
    base = root.resolve()
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if not each.resolve().is_relative_to(base):
            raise ModelLoadFailed(f"{each.name} is a link that leads out of the folder.")
