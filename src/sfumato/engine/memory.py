"""What is kept in memory within a budget, least recently used out: models, and whatever else was read or made."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Generic, TypeVar

from sfumato.core.errors import UnknownModel
from sfumato.engine.device import is_out_of_memory, release_memory
from sfumato.engine.families.base import LatentCodec, LoadedModel

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

Load = Callable[[str, str], LoadedModel]
"""Reads the model of a name from a location."""

LoadVae = Callable[[str, LatentCodec], LatentCodec]
"""Reads the VAE at a location, to stand in for the one of a codec."""


WARM_VAES = 2
"""VAEs kept besides the models' own; one is a few hundred megabytes."""


class WarmModels:
    """The models an engine knows, and those of them it holds in memory."""

    def __init__(
        self, load: Load, load_vae: LoadVae, *, budget_bytes: int, on_loaded: Callable[[str, float], None]
    ) -> None:
        self._load = load
        self._load_vae = load_vae
        self._budget_bytes = budget_bytes
        self._on_loaded = on_loaded
        self._locations: dict[str, str] = {}
        self._warm: OrderedDict[str, LoadedModel] = OrderedDict()
        self._vaes: OrderedDict[tuple[str, str], LatentCodec] = OrderedDict()
        self._lock = threading.Lock()

    def register(self, name: str, location: str) -> None:
        """Make a model known; its weights are read when it is first needed. One that has moved is read again."""
        with self._lock:
            if self._locations.get(name) != location:
                self._warm.pop(name, None)
            self._locations[name] = location

    def get(self, name: str, vae_location: str = "") -> LoadedModel:
        """Return a model, with another VAE if one is given, reading the weights of what is not warm.

        Raises `UnknownModel` or `ModelLoadFailed`.
        """
        with self._lock:
            if name not in self._locations:
                raise UnknownModel(f"The engine knows no model named {name!r}.")
            if name not in self._warm:
                began = time.perf_counter()
                self._warm[name] = self._loaded(name)
                self._on_loaded(name, time.perf_counter() - began)
                self._make_room(name)
            self._warm.move_to_end(name)
            model = self._warm[name]
            return replace(model, codec=self._vae(vae_location, model)) if vae_location else model

    def _loaded(self, name: str) -> LoadedModel:
        """Read a model; if memory does not suffice, once more without the others."""
        try:
            return self._load(name, self._locations[name])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not self._warm:
                raise
        self._warm.clear()
        self._vaes.clear()
        release_memory()
        return self._load(name, self._locations[name])

    def _vae(self, location: str, model: LoadedModel) -> LatentCodec:
        key = (location, model.name)
        if key not in self._vaes:
            self._vaes[key] = self._load_vae(location, model.codec)
            if len(self._vaes) > WARM_VAES:
                self._vaes.popitem(last=False)
        self._vaes.move_to_end(key)
        return self._vaes[key]

    def _make_room(self, newest: str) -> None:
        # A model dropped here lives on until the last of its pictures is done.
        while sum(model.size_bytes for model in self._warm.values()) > self._budget_bytes:
            oldest = next(iter(self._warm))
            if oldest == newest:
                return
            del self._warm[oldest]


class RecentlyUsed(Generic[Key, Value]):
    """Keeps the values used last, as many as fit a budget."""

    def __init__(self, *, budget_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._budget_bytes = budget_bytes
        self._size_of = size_of
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._sizes: dict[Key, int] = {}

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made if it is not there; what was not used for longest makes room."""
        if key not in self._values:
            self._values[key] = value = make()
            self._sizes[key] = self._size_of(value)
            while len(self._values) > 1 and sum(self._sizes.values()) > self._budget_bytes:
                oldest, _ = self._values.popitem(last=False)
                del self._sizes[oldest]
        self._values.move_to_end(key)
        return self._values[key]
