"""The LoRAs and embeddings that an engine has read: each file once, and each set of LoRAs fitted to a model once."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.core.errors import UnusableAddOn
from sfumato.engine.adapters.files import Adapter, AdapterSet, LoraFile, combine, read_lora
from sfumato.engine.adapters.names import UNET
from sfumato.engine.families.base import LoadedModel
from sfumato.engine.memory import RecentlyUsed
from sfumato.engine.prompt.embeddings import read_embedding
from sfumato.engine.prompt.encode import Embedding

FILES_BUDGET_BYTES = 2 * 1024**3
SETS_BUDGET_BYTES = 1024**3


class AddOnFiles:
    """Reads add-ons and remembers the last ones. A file that has changed is read again."""

    def __init__(self) -> None:
        self._loras = RecentlyUsed[Hashable, LoraFile](
            budget_bytes=FILES_BUDGET_BYTES, size_of=lambda file: file.size_bytes
        )
        self._sets = RecentlyUsed[Hashable, AdapterSet](
            budget_bytes=SETS_BUDGET_BYTES, size_of=lambda adapters: adapters.size_bytes
        )
        self._embeddings = RecentlyUsed[Hashable, Embedding](budget_bytes=10_000, size_of=lambda _: 1)

    def embedding(self, name: str, location: str) -> Embedding:
        """Return an embedding. Raises `UnusableAddOn`."""
        return self._embeddings.get(_version(name, location), lambda: read_embedding(name, Path(location)))

    def adapters(self, adapters: Sequence[Adapter], model: LoadedModel) -> tuple[str, AdapterSet]:
        """Return LoRAs fitted to a model, and a name that tells them from all others. Raises `UnusableAddOn`."""
        name = repr([(each, _version(each.name, each.path)) for each in adapters])
        return name, self._sets.get((model.name, name), lambda: self._fitted(adapters, model))

    def _fitted(self, adapters: Sequence[Adapter], model: LoadedModel) -> AdapterSet:
        files = [(each, self._lora(each)) for each in adapters]
        weight = next(model.networks[UNET].parameters())
        return combine(files, model.networks, weight.dtype, weight.device)

    def _lora(self, adapter: Adapter) -> LoraFile:
        version = _version(adapter.name, adapter.path)
        return self._loras.get(version, lambda: read_lora(adapter.name, Path(adapter.path)))


@dataclass(frozen=True)
class AddOns:
    """What a job may open: the files by registry name, as the server's scan found them, and where they are kept."""

    files: AddOnFiles = field(default_factory=AddOnFiles)
    adapter_locations: Mapping[str, str] = field(default_factory=dict)
    embedding_locations: Mapping[str, str] = field(default_factory=dict)


def _version(name: str, location: str) -> tuple[str, int, int]:
    try:
        status = Path(location).stat()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnusableAddOn(f"The file of {name} cannot be read: {reason}.") from error
    return location, status.st_mtime_ns, status.st_size
