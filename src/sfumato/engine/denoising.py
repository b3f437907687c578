"""The denoise loop of a device: all pictures of all requests, one forward pass a turn.

Every live picture is a sampler waiting for rows to be denoised. A turn picks a bucket (rows that can share a forward
pass: same network, latent shape and shape of conditioning), runs the network once over as many of its rows as pay, and
sends the samplers their answers. A picture joins at the next turn and leaves when its sampler returns. Nobody waits
for a batch to fill or for somebody else's steps. The loop knows no prompts, processes or pixels.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from PIL.Image import Image
from torch import Tensor

from sfumato.core.errors import GenerationFailed
from sfumato.engine.batching import BucketShares, WidthTuner
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.families.base import LatentCodec
from sfumato.engine.guidance import Errand, Row, RowSteps

AGEING_STEPS_PER_TURN = 2.0
"""How much nearer to its end a picture counts for each turn it was passed over."""


@dataclass(frozen=True)
class BucketKey:
    """What rows must have in common to share a forward pass."""

    model: str
    shape: tuple[int, ...]
    conditioning: tuple[tuple[str, tuple[int, ...]], ...]


class LivePicture:
    """One picture on its way: its sampler, the rows it waits for, and how far it is."""

    def __init__(
        self,
        *,
        job_id: str,
        index: int,
        steps: RowSteps,
        evaluations: int,
        codec: LatentCodec,
        finish: Callable[[Image], Image] | None = None,
    ) -> None:
        self.job_id = job_id
        self.codec = codec
        """What decodes the latents."""
        self.finish = finish
        """What is done to the decoded picture at the end."""
        self.index = index
        self.evaluations = evaluations
        self.evaluations_done = 0
        self.turns_waited = 0
        self.estimate: Tensor | None = None
        """The latest denoised latents, what an interrupted picture is decoded from."""
        self.errand: Errand | None = None
        """What must be done elsewhere before the picture goes on."""
        self._steps = steps
        self._rows: list[Row] = []
        self._answers: list[Tensor | None] = []

    def begin(self) -> Tensor | None:
        """Run the sampler up to its first ask; return the latents if it has none."""
        return self._go_on(lambda: next(self._steps))

    def resume(self, result: Tensor) -> Tensor | None:
        """Go on with an errand's result; return the latents if that was all."""
        self.errand = None
        return self._go_on(lambda: self._steps.send([result]))

    def waiting(self) -> list[tuple[int, Row]]:
        """Return the rows not yet answered, with their places in the ask."""
        return [(place, row) for place, row in enumerate(self._rows) if self._answers[place] is None]

    def answer(self, place: int, denoised: Tensor) -> Tensor | None:
        """Take one row's answer; when it was the last, run the sampler on and return the latents if that ended it.

        Raises `GenerationFailed` when the network's answer is not finite.
        """
        self._answers[place] = denoised
        answers = [answer for answer in self._answers if answer is not None]
        if len(answers) < len(self._rows):
            return None
        if not all(torch.isfinite(answer).all() for answer in answers):
            raise GenerationFailed(
                f"The network's output was not finite at evaluation {self.evaluations_done + 1} of "
                f"{self.evaluations} of picture {self.index}.",
                hint="Try another precision (SFUMATO_PRECISION=float32) or a lower guidance scale.",
            )
        self.estimate = answers[0]
        self.evaluations_done += 1
        return self._go_on(lambda: self._steps.send(answers))

    def _go_on(self, ask: Callable[[], list[Row] | Errand]) -> Tensor | None:
        try:
            asked = ask()
        except StopIteration as stop:
            latents: Tensor = stop.value
            return latents
        self.errand = asked if isinstance(asked, Errand) else None
        self._rows = [] if isinstance(asked, Errand) else asked
        self._answers = [None] * len(self._rows)
        return None

    def step_of(self, steps: int) -> int:
        """Return how many of `steps` sampler steps the evaluations done amount to."""
        return min(steps, self.evaluations_done * steps // self.evaluations)


@dataclass(frozen=True)
class Work:
    """A row of a turn's forward pass, and whose it is."""

    picture: LivePicture
    place: int
    row: Row


@dataclass
class Turn:
    """What one turn did: pictures that advanced, that ended (with their latents), that failed, that have an errand."""

    rows: int = 0
    pictures: int = 0
    jobs: int = 0
    seconds: float = 0.0
    network_seconds: float = 0.0
    advanced: list[LivePicture] = field(default_factory=list)
    ended: list[tuple[LivePicture, Tensor]] = field(default_factory=list)
    failed: list[tuple[LivePicture, Exception]] = field(default_factory=list)
    errands: list[LivePicture] = field(default_factory=list)


class DenoiseLoop:
    """Holds all live pictures of a device and advances them, a forward pass a turn."""

    def __init__(self, *, widest: int = 32, clock: Callable[[], float] = time.perf_counter) -> None:
        self._live: list[LivePicture] = []
        self._away: list[LivePicture] = []
        self._without_rows = Turn()
        self._shares = BucketShares[BucketKey]()
        self._tuners: dict[BucketKey, WidthTuner] = {}
        self._widest = widest
        self._clock = clock

    def __len__(self) -> int:
        """How many pictures the next turn has something to do for."""
        waiting = self._without_rows
        return len(self._live) + len(waiting.ended) + len(waiting.failed) + len(waiting.errands)

    def add(self, picture: LivePicture) -> None:
        """Let a picture take part from the next turn on."""
        self._settle(picture, picture.begin, self._without_rows)

    def resume(self, picture: LivePicture, result: Tensor) -> None:
        """Let a picture whose errand was run take part again, unless it was dropped meanwhile."""
        if picture in self._away:
            self._away.remove(picture)
            self._settle(picture, lambda: picture.resume(result), self._without_rows)

    def drop(self, job_id: str) -> list[LivePicture]:
        """Take a job's pictures out and return them."""
        dropped = [picture for picture in self._live + self._away if picture.job_id == job_id]
        self._live = [picture for picture in self._live if picture.job_id != job_id]
        self._away = [picture for picture in self._away if picture.job_id != job_id]
        return dropped

    def turn(self) -> Turn | None:
        """Run one forward pass and what follows from it; None when there is nothing to do."""
        if not len(self):
            return None
        if not self._live:
            turn, self._without_rows = self._without_rows, Turn()
            return turn
        began = self._clock()
        buckets = self._buckets()
        key = self._shares.next(buckets)
        tuner = self._tuners.setdefault(key, WidthTuner(self._widest))
        work = self._select(buckets[key], tuner.width(len(buckets[key])))
        turn, self._without_rows = self._without_rows, Turn()
        turn.rows = len(work)
        network_began = self._clock()
        answers = self._forward(work, turn)
        turn.network_seconds = self._clock() - network_began
        tuner.record(len(work), turn.network_seconds)
        self._shares.charge(key, turn.network_seconds)
        self._deliver(work, answers, turn)
        turn.seconds = self._clock() - began
        return turn

    def _buckets(self) -> dict[BucketKey, list[Work]]:
        buckets: dict[BucketKey, list[Work]] = {}
        for picture in self._live:
            for place, row in picture.waiting():
                key = BucketKey(row.network.name, tuple(row.x.shape), row.conditioning.signature)
                buckets.setdefault(key, []).append(Work(picture, place, row))
        return buckets

    def _select(self, waiting: list[Work], width: int) -> list[Work]:
        """Choose rows: those of pictures nearest to their end first, waiting brings a picture nearer."""

        def remaining(work: Work) -> float:
            picture = work.picture
            left = picture.evaluations - picture.evaluations_done
            return left - AGEING_STEPS_PER_TURN * picture.turns_waited

        ordered = sorted(waiting, key=remaining)
        chosen = {id(work.picture): work.picture for work in ordered[:width]}
        passed_over = {id(work.picture): work.picture for work in ordered[width:]}
        for picture in chosen.values():
            picture.turns_waited //= 2  # not to 0: a long picture among short ones would wait as long for each step
        for key, picture in passed_over.items():
            picture.turns_waited += key not in chosen
        return ordered[:width]

    def _forward(self, work: list[Work], turn: Turn) -> Sequence[Tensor | Exception]:
        """Run the network over the rows. If that fails, each job's rows run alone, so that only the culprit's fail."""
        try:
            return list(_run(work))
        except (RuntimeError, torch.OutOfMemoryError) as error:
            jobs = {item.picture.job_id for item in work}
            if len(jobs) == 1:
                return [error] * len(work)
        answers: dict[int, Tensor | Exception] = {}
        for job_id in jobs:
            own = [(number, item) for number, item in enumerate(work) if item.picture.job_id == job_id]
            alone = self._forward([item for _, item in own], turn)
            answers.update(zip((number for number, _ in own), alone, strict=True))
        return [answers[number] for number in range(len(work))]

    def _deliver(self, work: list[Work], answers: Sequence[Tensor | Exception], turn: Turn) -> None:
        gone: set[int] = set()
        pictures = {id(item.picture): item.picture for item in work}
        turn.pictures, turn.jobs = len(pictures), len({picture.job_id for picture in pictures.values()})
        for item, answer in zip(work, answers, strict=True):
            picture = item.picture
            if id(picture) in gone:
                continue
            before = picture.evaluations_done
            self._live.remove(picture)
            self._settle(picture, partial(_answered, picture, item.place, answer), turn)
            if picture.evaluations_done > before:
                turn.advanced.append(picture)
            if picture not in self._live:
                gone.add(id(picture))

    def _settle(self, picture: LivePicture, go_on: Callable[[], Tensor | None], turn: Turn) -> None:
        """Let a picture go on, and put it where it then belongs: among the live, the ended, the failed, or away."""
        try:
            latents = go_on()
        except Exception as error:
            turn.failed.append((picture, error))
            return
        if latents is not None:
            turn.ended.append((picture, latents))
        elif picture.errand is not None:
            self._away.append(picture)
            turn.errands.append(picture)
        else:
            self._live.append(picture)


def _answered(picture: LivePicture, place: int, answer: Tensor | Exception) -> Tensor | None:
    if isinstance(answer, Exception):
        raise answer
    return picture.answer(place, answer)


def _run(work: list[Work]) -> Tensor:
    """Stack the rows, run the network once, and return its float32 answers on the samplers' device."""
    x = torch.stack([item.row.x for item in work])
    sigma = torch.tensor([item.row.sigma for item in work], dtype=torch.float64)
    conditioning = Conditioning.stack([item.row.conditioning for item in work])
    return work[0].row.network.denoise(x, sigma, conditioning).to(x.device, torch.float32)
