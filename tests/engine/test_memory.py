"""Which models stay warm, and which VAE a job gets."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from sfumato.core.errors import UnknownModel
from sfumato.engine.families.autoencoder import Autoencoder
from sfumato.engine.families.base import LatentCodec, LoadedModel
from sfumato.engine.memory import WarmModels


def loaded(name: str) -> LoadedModel:
    """A model of 10 bytes that can do nothing."""
    codec = LatentCodec(Autoencoder(nn.Identity(), dtype=torch.float32, device=torch.device("cpu")), scaling_factor=1.0)
    return LoadedModel(
        name=name, denoiser=None, prompts=None, codec=codec, latent_channels=4, size_bytes=10, networks={},  # type: ignore[arg-type]
    )  # fmt: skip


@dataclass
class Shelf:
    """Models within a budget, and what was read from disk."""

    budget_bytes: int
    read: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.models = WarmModels(self._load, self._load_vae, budget_bytes=self.budget_bytes, on_loaded=lambda *_: None)
        for name in "abc":
            self.models.register(name, f"/{name}")

    def _load(self, name: str, location: str) -> LoadedModel:
        self.read.append(location)
        if self.errors:
            raise self.errors.pop()
        return loaded(name)

    def _load_vae(self, location: str, codec: LatentCodec) -> LatentCodec:
        self.read.append(location)
        return codec.through(codec.autoencoder)


def test_the_least_recently_used_model_goes_when_memory_is_full() -> None:
    shelf = Shelf(budget_bytes=20)
    for name in "abacab":
        shelf.models.get(name)
    assert shelf.read == ["/a", "/b", "/c", "/b"]


def test_a_model_larger_than_the_budget_is_kept_alone() -> None:
    shelf = Shelf(budget_bytes=5)
    for name in "aab":
        shelf.models.get(name)
    assert shelf.read == ["/a", "/b"]


def test_a_model_that_does_not_fit_beside_others_takes_their_place() -> None:
    shelf = Shelf(budget_bytes=100)
    shelf.models.get("a")
    shelf.errors.append(torch.OutOfMemoryError("no memory"))
    assert shelf.models.get("b").name == "b"
    shelf.models.get("a")
    assert shelf.read == ["/a", "/b", "/b", "/a"]


def test_a_model_that_does_not_fit_alone_is_out_of_memory() -> None:
    shelf = Shelf(budget_bytes=100, errors=[torch.OutOfMemoryError("no memory")])
    with pytest.raises(torch.OutOfMemoryError):
        shelf.models.get("a")


def test_a_model_that_has_moved_is_read_again() -> None:
    shelf = Shelf(budget_bytes=20)
    shelf.models.get("a")
    shelf.models.register("a", "/a")
    shelf.models.get("a")
    shelf.models.register("a", "/elsewhere")
    shelf.models.get("a")
    assert shelf.read == ["/a", "/elsewhere"]


def test_a_job_with_a_vae_leaves_the_models_own_to_others() -> None:
    shelf = Shelf(budget_bytes=20)
    own = shelf.models.get("a").codec
    other = shelf.models.get("a", "/vae").codec
    assert other is not own
    assert shelf.models.get("a", "/vae").codec is other
    assert shelf.models.get("a").codec is own
    assert shelf.read == ["/a", "/vae"]


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownModel):
        Shelf(budget_bytes=1).models.get("z")
