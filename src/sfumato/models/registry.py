"""The models and VAEs an installation has: the built-in model, those named one by one, and those of folders.

Reads names, headers and JSON in the locations the settings give and nowhere else. A model named explicitly must be
good or the scan fails; what is unfit in a folder is left out and listed with its reason.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from uuid import UUID

from sfumato.core.errors import UnknownModel
from sfumato.core.ids import derived_id
from sfumato.core.models import Family, ModelInfo, VaeInfo
from sfumato.core.requests import AUTOMATIC_VAE, NO_VAE
from sfumato.models import families, hub
from sfumato.models.addons import AddOnRegistry
from sfumato.models.hashing import CACHE_NAME, HashCache
from sfumato.models.scanning import Scanner, SkippedModel, model_info
from sfumato.settings import Settings

BUILTIN_NAME = "sfumato-builtin"
_MAX_ECHO = 200  # characters of an unknown name that an error repeats


@dataclass(kw_only=True)
class ModelRegistry:
    """All installed models and VAEs, and the LoRAs and embeddings that go with them.

    `default` serves requests that name no model. `rescanned` finds what is new.
    """

    models: tuple[ModelInfo, ...]
    default: ModelInfo
    skipped: tuple[SkippedModel, ...] = ()
    vaes: tuple[VaeInfo, ...] = ()
    add_ons: AddOnRegistry = field(default_factory=AddOnRegistry, repr=False, compare=False)
    settings: Settings | None = field(default=None, repr=False, compare=False)
    _by_word: dict[str, ModelInfo] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_word = _index(self.models)

    @classmethod
    def scan(cls, settings: Settings, *, compute_hashes: bool = False, progress: hub.Progress | None = None) -> Self:
        """Find and identify all models the settings name; the first of `settings.model` is the default.

        Files named one by one are hashed (once: see `hashing`). Files of folders are hashed only with
        `compute_hashes`, as a large folder takes minutes; until then a remembered hash is used, or none.
        Raises `ModelLoadFailed` when a model named explicitly cannot be used.
        """
        hashes = HashCache(settings.data_dir / CACHE_NAME)
        scanner = Scanner(hashes, compute_hashes=compute_hashes, progress=progress)
        named = [scanner.named(text) for text in settings.model]
        found, skipped, vaes = [_builtin(), *named], list[SkippedModel](), dict[str, VaeInfo]()
        for each in scanner.everywhere(settings):
            match each:
                case SkippedModel():
                    skipped.append(each)
                case VaeInfo():
                    vaes.setdefault(each.name, each)
                case ModelInfo():
                    found.append(each)
        models = _unique(found)
        preferred = Path((named or found)[0].location).resolve()
        default = next(model for model in models if Path(model.location).resolve() == preferred)
        return cls(
            models=models,
            default=default,
            skipped=tuple(skipped),
            vaes=tuple(vaes.values()),
            add_ons=AddOnRegistry.of(settings, hashes),
            settings=settings,
        )

    def rescanned(self) -> "ModelRegistry":
        """Return what there is now; reads folders, so not for the event loop. Raises as `scan`."""
        return self if self.settings is None else ModelRegistry.scan(self.settings)

    def adopt(self, found: "ModelRegistry") -> None:
        """Serve what another scan has found from now on."""
        self.models, self.default, self._by_word = found.models, found.default, found._by_word
        self.skipped, self.vaes = found.skipped, found.vaes

    def find_vae(self, choice: str, model: ModelInfo) -> VaeInfo | None:
        """Return the VAE that stands in for a model's own, or None for its own.

        `choice` is "None", "Automatic" (the VAE named as the model, where there is one), or a file's name with or
        without its ending, in any case. Raises `UnknownModel`.
        """
        wanted = choice.strip().casefold()
        if wanted == NO_VAE.casefold():
            return None
        is_automatic = wanted in ("", AUTOMATIC_VAE.casefold())
        stem = Path(model.location).name.removesuffix(families.SAFETENSORS).casefold()
        for vae in self.vaes:
            name = vae.name.casefold()
            bare = name.removesuffix(families.SAFETENSORS)
            if bare.removesuffix(".vae") == stem if is_automatic else wanted in (name, bare, vae.short_hash):
                return vae
        if is_automatic:
            return None
        names = ", ".join((AUTOMATIC_VAE, NO_VAE, *(vae.name for vae in self.vaes)))
        raise UnknownModel(f"There is no VAE named {choice[:_MAX_ECHO]!r}.", field="vae", hint=f"One of: {names}.")

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


def _builtin() -> ModelInfo:
    folder = Path(__file__).parents[1] / "builtin"
    return model_info(BUILTIN_NAME, BUILTIN_NAME, Family.BUILTIN, folder)


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
