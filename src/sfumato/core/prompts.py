"""The parts of AUTOMATIC1111's prompt language that are read before an engine sees a prompt: comments and tags.

A tag such as `<lora:knight:0.8>` asks for a network besides the model. The server looks its name up; the engine reads
its weights and takes it out of the words. The rest of the language is `sfumato.engine.prompt`'s.
"""

import re
from dataclasses import dataclass

from sfumato.core.errors import InvalidPrompt

LORA_KINDS = frozenset({"lora", "lyco"})
HYPERNET_KIND = "hypernet"

_TAG = re.compile(r"<(\w+):([^<>]+)>")
_COMMENT = re.compile(r"\n?#[^\n]*(?:\n|\Z)")
_MAX_STRENGTH = 100.0


@dataclass(frozen=True, kw_only=True)
class AdapterTag:
    """What `<lora:name:text:denoiser:rank>` asks for: a LoRA, how strongly in each network, and at most which rank."""

    name: str
    text_weight: float = 1.0
    denoiser_weight: float = 1.0
    rank: int | None = None


@dataclass(frozen=True, kw_only=True)
class Tags:
    """The tags of a prompt: LoRAs in order, and the other tags as (kind, rest)."""

    adapters: tuple[AdapterTag, ...] = ()
    others: tuple[tuple[str, str], ...] = ()


def without_comments(prompt: str) -> str:
    """Replace each comment, from `#` to the end of its line, by a line break."""
    return _COMMENT.sub("\n", prompt)


def without_tags(prompt: str) -> str:
    """Return a prompt's words."""
    return _TAG.sub("", prompt)


def tags_of(prompt: str) -> Tags:
    """Read a prompt's tags. Raises `InvalidPrompt` for a LoRA's weight that is no number."""
    adapters, others = list[AdapterTag](), list[tuple[str, str]]()
    for match in _TAG.finditer(prompt):
        kind, rest = match[1].casefold(), match[2]
        if kind in LORA_KINDS:
            adapters.append(_adapter(match[0], rest))
        else:
            others.append((kind, rest))
    return Tags(adapters=tuple(adapters), others=tuple(others))


def _adapter(tag: str, rest: str) -> AdapterTag:
    """Read `name:text:denoiser:rank`, of which all but the name may be absent or given as `te=`, `unet=`, `dyn=`."""
    name, *values = (part.strip() for part in rest.split(":"))
    named = dict(value.split("=", 1) for value in values if "=" in value)
    given = [value for value in values if "=" not in value]
    text, denoiser, rank = (
        named.get(word, given[place] if place < len(given) else None)
        for place, word in enumerate(("te", "unet", "dyn"))
    )
    text_weight = _number(tag, text) if text else 1.0
    return AdapterTag(
        name=name,
        text_weight=text_weight,
        denoiser_weight=_number(tag, denoiser) if denoiser else text_weight,
        rank=max(1, int(_number(tag, rank))) if rank else None,
    )


def _number(tag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _bad(tag, f"{text!r} is no number") from None
    if not abs(value) <= _MAX_STRENGTH:  # true for NaN too
        raise _bad(tag, f"{text} is not between -{_MAX_STRENGTH:g} and {_MAX_STRENGTH:g}")
    return value


def _bad(tag: str, reason: str) -> InvalidPrompt:
    return InvalidPrompt(f"In {tag[:100]}: {reason}.", field="prompt", hint="Write <lora:name:weight>.")
