"""What the server does to prompts before an engine reads them: styles, comments, and names of LoRAs and embeddings."""

from dataclasses import dataclass

from sfumato.api.sdapi.fields import GenerationBody, Txt2ImgBody
from sfumato.api.sdapi.options import Overrides
from sfumato.api.sdapi.styles import StyleBook
from sfumato.core.errors import InvalidRequest, NotSupported, UnusableAddOn
from sfumato.core.models import ModelInfo
from sfumato.core.prompts import HYPERNET_KIND, Tags, tags_of, without_comments, without_tags
from sfumato.core.requests import MAX_PROMPT_CHARACTERS, AddOn, PromptOptions
from sfumato.models.addons import AddOnRegistry


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """A request's prompts as the engine gets them, what they name, and sentences about what they name in vain.

    The second pass's are empty where the first pass's hold for it.
    """

    prompt: str
    negative_prompt: str
    hr_prompt: str
    hr_negative_prompt: str
    options: PromptOptions
    adapters: tuple[AddOn, ...] = ()
    embeddings: tuple[AddOn, ...] = ()
    notes: tuple[str, ...] = ()


def read_prompts(body: GenerationBody, overrides: Overrides, styles: StyleBook, add_ons: AddOnRegistry) -> Prompts:
    """Read a body's prompts; may take the time of hashing files.

    Raises `InvalidPrompt` for a tag's weight that is no number, `UnusableAddOn` for a LoRA that is there but cannot
    be read, and `NotSupported` for hypernetworks.
    """
    has_comments = overrides.prompting.has_comments
    given = _bounded({name: getattr(body, name, None) or "" for name in _FIRST_PASS + _SECOND_PASS})
    prompt, negative_prompt, notes = styles.apply(given["prompt"], given["negative_prompt"], body.styles or ())
    second = ["", ""]
    # An empty one stands for the first pass's, which has its styles already.
    if isinstance(body, Txt2ImgBody) and body.enable_hr:
        hr_prompt, hr_negative, _ = styles.apply(given["hr_prompt"], given["hr_negative_prompt"], body.styles or ())
        second = [hr_prompt if given["hr_prompt"] else "", hr_negative if given["hr_negative_prompt"] else ""]
    texts = [without_comments(text) if has_comments else text for text in (prompt, negative_prompt, *second)]
    finder = _Finder(overrides.model, add_ons)
    return Prompts(
        prompt=texts[0],
        negative_prompt=texts[1],
        hr_prompt=texts[2],
        hr_negative_prompt=texts[3],
        options=overrides.prompting.options,
        adapters=() if body.disable_extra_networks else finder.adapters(tags_of(texts[0]), tags_of(texts[2])),
        embeddings=finder.embeddings(without_tags(texts[0]), texts[1], without_tags(texts[2]), texts[3]),
        notes=(*notes, *finder.notes),
    )


_FIRST_PASS = ("prompt", "negative_prompt")
_SECOND_PASS = ("hr_prompt", "hr_negative_prompt")


def _bounded(prompts: dict[str, str]) -> dict[str, str]:
    """Return prompts that are not too long to be worked on; raise `InvalidRequest` for others."""
    for field, text in prompts.items():
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise InvalidRequest(f"{field} is longer than {MAX_PROMPT_CHARACTERS} characters.", field=field)
    return prompts


class _Finder:
    """Looks up what prompts name."""

    def __init__(self, model: ModelInfo, add_ons: AddOnRegistry) -> None:
        self._model = model
        self._add_ons = add_ons
        self.notes: list[str] = []

    def adapters(self, *passes: Tags) -> tuple[AddOn, ...]:
        for kind in dict.fromkeys(kind for tags in passes for kind, _ in tags.others):
            if kind == HYPERNET_KIND:
                raise NotSupported("Hypernetworks are not supported by this version of Sfumato.", field="prompt")
            self.notes.append(f"Tags of the kind {kind[:50]!r} are not known; it was left out.")
        found = (self._adapter(word) for word in dict.fromkeys(tag.name for tags in passes for tag in tags.adapters))
        return tuple(add_on for add_on in found if add_on is not None)

    def _adapter(self, word: str) -> AddOn | None:
        loras = self._add_ons.loras
        if file := loras.find(word):
            return AddOn(word=word, name=file.name, short_hash=self._add_ons.lora_hash(file))
        if reason := loras.skipped.get(word):
            raise UnusableAddOn(f"The LoRA {word} cannot be used: {reason}", field="prompt")
        self.notes.append(f"There is no LoRA named {word[:100]!r}; it was left out.")
        return None

    def embeddings(self, *texts: str) -> tuple[AddOn, ...]:
        shelf = self._add_ons.embeddings
        named = {file.name: file for text in texts for file in shelf.named_in(text)}
        self.notes += (
            f"The embedding {file.name} was made for another family; its name is only a word."
            for file in named.values()
            if not file.fits(self._model)
        )
        return tuple(
            AddOn(word=file.name, name=file.name, short_hash=self._add_ons.embedding_hash(file))
            for file in named.values()
            if file.fits(self._model)
        )
