"""Several models warm within a memory budget, least recently used out."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from sfumato.core.errors import UnknownModel
from sfumato.engine.families.base import LoadedModel

Load = Callable[[str, str], LoadedModel]
"""Reads the model of a name from a location."""


class WarmModels:
    """The models an engine knows, and those of them it holds in memory."""

    def __init__(self, load: Load, *, budget_bytes: int, on_loaded: Callable[[str, float], None]) -> None:
        self._load = load
        self._budget_bytes = budget_bytes
        self._on_loaded = on_loaded
        self._locations: dict[str, str] = {}
        self._warm: OrderedDict[str, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def register(self, name: str, location: str) -> None:
        """Make a model known; its weights are read when it is first needed."""
        self._locations[name] = location

    def get(self, name: str) -> LoadedModel:
        """Return a model, reading its weights if it is not warm; raises `UnknownModel` or `ModelLoadFailed`."""
        with self._lock:
            if name not in self._locations:
                raise UnknownModel(f"The engine knows no model named {name!r}.")
            if name not in self._warm:
                began = time.perf_counter()
                self._warm[name] = self._load(name, self._locations[name])
                self._on_loaded(name, time.perf_counter() - began)
                self._make_room(name)
            self._warm.move_to_end(name)
            return self._warm[name]

    def _make_room(self, newest: str) -> None:
        # A model dropped here lives on until the last of its pictures is done.
        while sum(model.size_bytes for model in self._warm.values()) > self._budget_bytes:
            oldest = next(iter(self._warm))
            if oldest == newest:
                return
            del self._warm[oldest]
