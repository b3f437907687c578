"""The fixed prompts of the evaluation, each with what its picture must show."""

from __future__ import annotations

from dataclasses import dataclass

from training.colours import BACKGROUNDS, PALETTE
from training.things import BY_NAME, THINGS, article

GRID = (
    "a red apple", "red apple", "a blue car", "a green car", "a yellow banana", "a cat", "a dog", "an orange cat",
    "a red apple on a blue background", "a cat on a yellow background", "a rocket on a black background",
    "a star on a purple background", "a pink heart", "a blue heart", "a green frog", "a lion on a green background",
    "a house", "a blue house", "a tree", "a palm tree on a light blue background", "a sunflower", "a red rose",
    "the sun on a light blue background", "the moon on a black background", "a purple umbrella", "a red balloon",
    "a gift", "a golden crown", "a pizza", "a burger", "a donut on a pink background", "an ice cream",
    "a cup of coffee", "a birthday cake", "a strawberry", "a pineapple", "a penguin", "an owl", "a fox", "a rabbit",
    "a panda", "a tiger", "a pink pig", "a unicorn", "a blue butterfly", "a turtle", "a whale", "an octopus",
    "a robot", "an alien", "a ghost on a black background", "a pumpkin", "a snowman on a blue background", "a cactus",
    "a mushroom", "a smiley face", "a train", "an airplane on a light blue background", "a bicycle", "a guitar",
    "three apples", "two cats", "a dog next to a house", "a cat wearing a top hat",
)  # fmt: skip

PAIRS = (
    ("dog", "next to", "house"), ("cat", "next to", "tree"), ("star", "above", "tree"), ("apple", "next to", "banana"),
    ("car", "next to", "tree"), ("sun", "above", "house"), ("robot", "next to", "rocket"), ("cat", "above", "car"),
    ("bear", "next to", "balloon"), ("star", "next to", "moon"), ("balloon", "above", "dog"),
    ("pizza", "next to", "burger"), ("rabbit", "next to", "carrot"), ("crown", "above", "lion"),
    ("sun", "next to", "cloud"), ("penguin", "next to", "fish"), ("butterfly", "above", "flower"),
    ("pig", "next to", "cow"), ("heart", "next to", "rose"), ("bird", "above", "boat"), ("owl", "next to", "tree"),
    ("bus", "next to", "car"), ("apple", "above", "book"), ("frog", "next to", "mushroom"), ("cake", "next to", "gift"),
    ("rocket", "above", "planet"), ("crown", "next to", "lion"), ("monkey", "next to", "banana"),
    ("airplane", "above", "castle"), ("ghost", "next to", "pumpkin"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt and what it asks for; `colour` is the subject's, None where it is left open."""

    caption: str
    things: tuple[str, ...]
    colour: str | None = None
    background: str = "white"


def of_things(count: int) -> list[Prompt]:
    """Ask for each of the first `count` things once."""
    return [Prompt(caption=_phrase(thing.name), things=(thing.name,)) for thing in THINGS[:count]]


def of_backgrounds(count: int, things: int) -> list[Prompt]:
    """Ask for `count` of the first `things` things, on every background in turn."""
    prompts = []
    for number in range(count):
        name, colour = THINGS[number * 7 % things].name, list(BACKGROUNDS)[number % len(BACKGROUNDS)]
        caption = f"{_phrase(name)} on {article(colour)} background"
        prompts.append(Prompt(caption=caption, things=(name,), background=colour))
    return prompts


def of_colours(count: int, things: int) -> list[Prompt]:
    """Ask for `count` of the first `things` things in every colour but white in turn, on white."""
    usable = [thing.name for thing in THINGS[:things] if thing.is_recolourable]
    colours = [colour for colour in PALETTE if colour != "white"]
    asked = [(usable[number * 5 % len(usable)], colours[number % len(colours)]) for number in range(count)]
    return [Prompt(caption=_phrase(name, colour), things=(name,), colour=colour) for name, colour in asked]


def of_pairs(count: int) -> list[Prompt]:
    """Ask for the first `count` of the pairs."""
    return [
        Prompt(caption=f"{_phrase(first)} {said} {_phrase(second)}", things=(first, second))
        for first, said, second in PAIRS[:count]
    ]


def is_stacked(caption: str) -> bool:
    """Say whether a caption puts one of two things above the other, rather than beside it."""
    return any(said in caption for said in (" above ", " below ", " on top of "))


def _phrase(name: str, colour: str | None = None) -> str:
    noun = f"{colour} {name}" if colour else name
    return f"the {noun}" if BY_NAME[name].is_mass else article(noun)
