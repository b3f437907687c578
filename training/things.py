"""The things the built-in model draws: their names, icons and synonyms.

Knows words only; how a thing looks is the icon sets' business (`training.sprites`).
"""

from __future__ import annotations

from dataclasses import dataclass

# name | icon names, the first found in a set is taken | synonyms | flags
# The first COMMON are what a short training learns; the others follow in a longer one.
# flags: c = may be recoloured, f = a face that can wear a hat, h = a hat, m = a mass or unique noun ("the sun", "fire")
_TABLE = """
apple | red-apple | | c
banana | banana | | c
orange | tangerine | tangerine, mandarin |
lemon | lemon | | c
strawberry | strawberry | berry | c
cherry | cherries | pair of cherries | c
grapes | grapes | bunch of grapes | cm
watermelon | watermelon | slice of watermelon | c
pear | pear | | c
pineapple | pineapple | |
carrot | carrot | | c
tomato | tomato | | c
corn | ear-of-corn | ear of corn, maize | m
egg | egg | |
pizza | pizza | slice of pizza |
burger | hamburger | hamburger, cheeseburger |
french fries | french-fries | fries, chips | m
cake | birthday-cake | birthday cake |
cookie | cookie | biscuit |
donut | doughnut | doughnut | c
ice cream | soft-ice-cream | ice cream cone |
cup of coffee | hot-beverage | coffee cup, coffee, cup of tea |
cat | cat-face | kitty, kitten, cat face | cf
dog | dog-face | puppy, dog face, doggy | cf
bear | bear | bear face | cf
panda | panda | panda bear | f
rabbit | rabbit-face | bunny, rabbit face, hare | cf
fox | fox | fox face | cf
lion | lion | lion face | f
tiger | tiger-face | tiger face | cf
pig | pig-face | piglet, pig face | cf
cow | cow-face | cow face | f
horse | horse-face | pony, horse face | c
unicorn | unicorn | |
frog | frog | frog face, toad | cf
monkey | monkey-face | monkey face, ape | cf
bird | bird | little bird | c
owl | owl | | c
penguin | penguin | |
duck | duck | mallard |
fish | tropical-fish | tropical fish | c
shark | shark | |
whale | spouting-whale | blue whale | c
octopus | octopus | squid | c
turtle | turtle | tortoise | c
butterfly | butterfly | | c
bee | honeybee | honeybee, bumblebee |
ladybug | lady-beetle | ladybird | c
elephant | elephant | | c
dinosaur | sauropod | brontosaurus | c
car | automobile | automobile, auto | c
bus | bus | | c
bicycle | bicycle | bike | c
train | locomotive | steam train, locomotive |
airplane | airplane | plane, aeroplane, jet |
rocket | rocket | spaceship, space rocket | c
boat | sailboat | sailboat, sailing boat | c
house | house | home, cottage | c
castle | castle | |
tree | deciduous-tree | oak tree | c
pine tree | evergreen-tree | fir tree, evergreen tree | c
christmas tree | christmas-tree | |
cactus | cactus | | c
flower | hibiscus | blossom | c
rose | rose | | c
sunflower | sunflower | |
mushroom | mushroom | toadstool | c
sun | sun | sunshine | mc
moon | crescent-moon | crescent moon | m
star | star | | c
cloud | cloud | |
rainbow | rainbow | |
snowflake | snowflake | |
snowman | snowman-without-snow | |
fire | fire | flame | mc
water drop | droplet | drop of water, raindrop | c
planet | ringed-planet | saturn | c
earth | globe-showing-europe-africa | planet earth, globe, the world | m
heart | red-heart | love heart | c
smiley face | grinning-face | smiley, happy face, emoji face | cf
ghost | ghost | |
robot | robot | robot face | cf
alien | alien | alien face |
pumpkin | jack-o-lantern | jack o lantern, halloween pumpkin | c
poop | pile-of-poo | pile of poo | c
balloon | balloon | party balloon | c
gift | wrapped-gift | present, gift box | c
crown | crown | | ch
top hat | top-hat | hat | h
umbrella | umbrella | | c
shoe | running-shoe | sneaker, running shoe | c
book | closed-book | closed book | c
key | key | old key | c
clock | alarm-clock | alarm clock | c
light bulb | light-bulb | lamp, bulb |
guitar | guitar | | c
football | soccer-ball | soccer ball |
basketball | basketball | basket ball | c
trophy | trophy | cup trophy |
diamond | gem-stone | gem, jewel | c
bread | bread | loaf of bread | m
cheese | cheese-wedge | piece of cheese | m
hot dog | hot-dog | |
cupcake | cupcake | muffin | c
lollipop | lollipop | |
teapot | teapot | | c
beer | beer-mug | mug of beer, beer mug |
mouse | mouse-face | mouse face | cf
chicken | chicken | hen | f
parrot | parrot | |
flamingo | flamingo | | c
crab | crab | | c
snake | snake | | c
giraffe | giraffe | |
zebra | zebra | |
sheep | ewe | lamb |
dragon | dragon-face | dragon face | c
taxi | taxi | cab |
truck | delivery-truck | lorry, delivery truck |
motorcycle | motorcycle | motorbike | c
helicopter | helicopter | | c
ufo | flying-saucer | flying saucer |
palm tree | palm-tree | palm |
tulip | tulip | | c
leaf | maple-leaf | maple leaf | c
lightning | high-voltage | lightning bolt | mc
volcano | volcano | |
mountain | snow-capped-mountain | |
skull | skull | |
clown | clown-face | clown face |
teddy bear | teddy-bear | teddy, stuffed bear | c
cap | billed-cap | baseball cap | ch
dress | dress | | c
t-shirt | t-shirt | shirt, tee shirt | c
pencil | pencil | |
scissors | scissors | pair of scissors | mc
candle | candle | |
camera | camera | photo camera |
television | television | tv |
laptop | laptop | computer, notebook computer |
phone | mobile-phone | smartphone, mobile phone |
chair | chair | | c
bell | bell | | c
"""

_PLURALS = {
    "mouse": "mice",
    "fish": "fish",
    "sheep": "sheep",
    "leaf": "leaves",
    "octopus": "octopuses",
    "glass of wine": "glasses of wine",
    "cup of coffee": "cups of coffee",
    "cup of tea": "cups of tea",
    "slice of pizza": "slices of pizza",
    "slice of watermelon": "slices of watermelon",
    "mug of beer": "mugs of beer",
    "drop of water": "drops of water",
}


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One kind of thing: `icons` are names in the icon sets, best first."""

    name: str
    icons: tuple[str, ...]
    synonyms: tuple[str, ...]
    is_recolourable: bool
    is_face: bool
    is_hat: bool
    is_mass: bool


def plural(noun: str) -> str:
    """Return the English plural of a thing's name."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("s", "sh", "ch", "x")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith("tomato") else "s")


def article(phrase: str) -> str:
    """Return `phrase` with "a" or "an" before it."""
    vowel = phrase[0] in "aeio" or phrase.startswith(("um", "ug"))
    return f"{'an' if vowel else 'a'} {phrase}"


def _parse(line: str) -> Thing:
    name, icons, synonyms, flags = (cell.strip() for cell in line.split("|"))
    return Thing(
        name=name,
        icons=tuple(icon.strip() for icon in icons.split(",")),
        synonyms=tuple(word.strip() for word in synonyms.split(",") if word.strip()),
        is_recolourable="c" in flags,
        is_face="f" in flags,
        is_hat="h" in flags,
        is_mass="m" in flags,
    )


COMMON = 100
THINGS: tuple[Thing, ...] = tuple(_parse(line) for line in _TABLE.strip().splitlines())
BY_NAME: dict[str, Thing] = {thing.name: thing for thing in THINGS}
