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
    """A request's prompts as the engine gets them, what they name, and sentences about what they name in vain."""

    prompt: str
    negative_prompt: str
    options: PromptOptions
    hires_prompt: str | None = None
    hires_negative_prompt: str | None = None
    adapters: tuple[AddOn, ...] = ()
    embeddings: tuple[AddOn, ...] = ()
    notes: tuple[str, ...] = ()


def read_prompts(body: GenerationBody, overrides: Overrides, styles: StyleBook, add_ons: AddOnRegistry) -> Prompts:
    """Read a body's prompts; may take the time of hashing files.

    Raises `InvalidPrompt` for a tag's weight that is no number, `UnusableAddOn` for a LoRA that is there but cannot
    be read, and `NotSupported` for hypernetworks.
    """
    hires = _hires_prompts(body)
    texts = {"prompt": body.prompt, "negative_prompt": body.negative_prompt}
    for field, text in (texts | {"hr_prompt": hires[0], "hr_negative_prompt": hires[1]}).items():
        if len(text or "") > MAX_PROMPT_CHARACTERS:  # before any work on it
            raise InvalidRequest(f"{field} is longer than {MAX_PROMPT_CHARACTERS} characters.", field=field)
    prompt, negative_prompt, notes = styles.apply(body.prompt or "", body.negative_prompt or "", body.styles or ())
    *hires_texts, _ = styles.apply(hires[0] or "", hires[1] or "", body.styles or ())
    if overrides.prompting.has_comments:
        prompt, negative_prompt = without_comments(prompt), without_comments(negative_prompt)
        hires_texts = [without_comments(text) for text in hires_texts]
    hires_prompt, hires_negative = (text if own else None for text, own in zip(hires_texts, hires, strict=True))
    finder = _Finder(overrides.model, add_ons)
    adapters: tuple[AddOn, ...] = ()
    if not body.disable_extra_networks:
        adapters = finder.adapters(tags_of(prompt))
        if hires_prompt:
            adapters = tuple(dict.fromkeys((*adapters, *finder.adapters(tags_of(hires_prompt)))))
    return Prompts(
        prompt=prompt,
        negative_prompt=negative_prompt,
        options=overrides.prompting.options,
        hires_prompt=hires_prompt,
        hires_negative_prompt=hires_negative,
        adapters=adapters,
        embeddings=finder.embeddings(
            without_tags(prompt), negative_prompt, without_tags(hires_prompt or ""), hires_negative or ""
        ),
        notes=(*notes, *finder.notes),
    )


def _hires_prompts(body: GenerationBody) -> tuple[str | None, str | None]:
    """Return the second pass's own prompts; None where it takes the first pass's."""
    if isinstance(body, Txt2ImgBody) and body.enable_hr:
        return body.hr_prompt or None, body.hr_negative_prompt or None
    return None, None


class _Finder:
    """Looks up what prompts name."""

    def __init__(self, model: ModelInfo, add_ons: AddOnRegistry) -> None:
        self._model = model
        self._add_ons = add_ons
        self.notes: list[str] = []

    def adapters(self, tags: Tags) -> tuple[AddOn, ...]:
        for kind, _ in tags.others:
            if kind == HYPERNET_KIND:
                raise NotSupported("Hypernetworks are not supported by this version of Sfumato.", field="prompt")
            self.notes.append(f"Tags of the kind {kind[:50]!r} are not known; it was left out.")
        found = (self._adapter(word) for word in dict.fromkeys(tag.name for tag in tags.adapters))
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
