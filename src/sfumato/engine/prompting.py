"""From the prompts of a request to what guides its pictures: conditionings by call, and the LoRAs of the pass.

The order is that of docs/sdapi.md, "Prompt language": tags out, AND, editing and alternation, then each distinct text
is encoded once.
"""

from dataclasses import dataclass

from torch import Tensor

from sfumato.core.prompts import tags_of, without_tags
from sfumato.core.requests import AddOn, GenerationRequest, PromptSyntax
from sfumato.core.sampling import find_sampler
from sfumato.engine.adapters.files import Adapter, AdapterSet
from sfumato.engine.adapters.names import UNET
from sfumato.engine.addons import AddOns
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.families.base import LoadedModel
from sfumato.engine.guidance import Guide, Network
from sfumato.engine.prompt.encode import Embedding, Within
from sfumato.engine.prompt.grammar import split_and
from sfumato.engine.prompt.schedule import Calls, Course, course_of


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """What a pass is guided by and through which network, with its LoRAs.

    `notes` are sentences for the user about prompts that were read otherwise than they look.
    """

    guide: Guide
    network: Network
    notes: tuple[str, ...] = ()


def calls_of(request: GenerationRequest, *, after: Calls | None = None) -> Calls:
    """Return the timeline of a pass, which goes on with that of the pass before it, if there was one.

    A step of a second-order sampler counts as two calls.
    """
    sampler, _ = find_sampler(request.sampler)
    per_step = 2 if sampler.options.get("second_order") else 1
    return Calls(request.steps * per_step, after.count if after else 0)


def read_prompts(
    request: GenerationRequest, model: LoadedModel, add_ons: AddOns, calls: Calls | None = None
) -> Prompted:
    """Read and encode the prompts of a pass; `calls` is its timeline, if it does not stand alone.

    Raises `InvalidPrompt`, and `UnusableAddOn` for a LoRA that is damaged or of another family.
    """
    return _Reader(request, model, add_ons, calls or calls_of(request)).read(request.prompt, request.negative_prompt)


class _Reader:
    """Reads the prompts of one pass."""

    def __init__(self, request: GenerationRequest, model: LoadedModel, add_ons: AddOns, calls: Calls) -> None:
        self._request = request
        self._model = model
        self._add_ons = add_ons
        self._calls = calls
        self._is_plain = request.prompt_syntax is PromptSyntax.PLAIN
        self._notes: list[str] = []
        self._within = Within()

    def read(self, prompt: str, negative_prompt: str) -> Prompted:
        name, adapters = self._adapters(prompt)
        self._notes += adapters.notes
        self._within = self._surroundings(name, adapters)
        parts = [(prompt, 1.0)] if self._is_plain else split_and(without_tags(prompt))
        guide = Guide(
            positive=tuple((self._course(text), weight) for text, weight in parts),
            negative=self._course(negative_prompt),
        )
        return Prompted(guide=guide, network=self._network(name, adapters), notes=tuple(dict.fromkeys(self._notes)))

    def _course(self, text: str) -> Course[Conditioning]:
        """Encode a prompt for every call; of equal texts only one is encoded."""
        if self._is_plain:
            course = Course.constant(text)
        else:
            course, complaints = course_of(text, self._calls)
            self._notes += complaints
        request = self._request
        encoded = {
            each: self._model.prompts.encode(each, request.prompt_syntax, request.prompt_options, self._within)
            for each in dict.fromkeys(course.things)
        }
        return course.map(encoded.__getitem__)

    def _adapters(self, prompt: str) -> tuple[str, AdapterSet]:
        """Return the LoRAs that the prompt's tags name, as far as the server found them, under a name for them all."""
        known = {add_on.word: add_on for add_on in self._request.adapters}
        locations = self._add_ons.adapter_locations
        tags = [] if self._is_plain else [tag for tag in tags_of(prompt).adapters if tag.name in known]
        chosen = [
            Adapter(
                name=known[tag.name].name,
                path=locations[known[tag.name].name],
                text_weight=tag.text_weight,
                denoiser_weight=tag.denoiser_weight,
                rank=tag.rank,
            )
            for tag in tags
            if self._is_there(known[tag.name], "LoRA", locations)
        ]
        return self._add_ons.files.adapters(chosen, self._model) if chosen else ("", AdapterSet())

    def _surroundings(self, name: str, adapters: AdapterSet) -> Within:
        texts = {name: network for name, network in self._model.networks.items() if name != UNET}
        changes_text = any(adapters.deltas.get(name) for name in texts)
        embeddings = self._embeddings()
        return Within(
            key=(name if changes_text else "", tuple(embedding.name for embedding in embeddings)),
            embeddings=embeddings,
            adapted=lambda: adapters.on(texts),
        )

    def _network(self, name: str, adapters: AdapterSet) -> Network:
        """Return the model's denoiser, under its LoRAs when it has any."""
        model = self._model
        if not adapters.deltas.get(UNET):
            return Network(model.name, model.denoiser.denoise)
        networks = {UNET: model.networks[UNET]}

        def denoise(x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
            with adapters.on(networks):
                return model.denoiser.denoise(x, sigma, conditioning)

        return Network(f"{model.name} with {name}", denoise)

    def _embeddings(self) -> tuple[Embedding, ...]:
        """Return the embeddings that the server found in the prompts and that this model takes."""
        locations = self._add_ons.embedding_locations
        widths = set(self._model.prompts.encoder.embedding_widths)
        found = []
        for add_on in self._request.embeddings:
            if not self._is_there(add_on, "embedding", locations):
                continue
            embedding = self._add_ons.files.embedding(add_on.name, locations[add_on.name])
            if widths and widths == set(embedding.vectors[0]):
                found.append(embedding)
            else:
                self._notes.append(f"The embedding {add_on.name} was made for another family; its name is only a word.")
        return tuple(found)

    def _is_there(self, add_on: AddOn, kind: str, locations: object) -> bool:
        if isinstance(locations, dict) and add_on.name in locations:
            return True
        self._notes.append(f"The {kind} {add_on.name} is no longer installed.")
        return False
