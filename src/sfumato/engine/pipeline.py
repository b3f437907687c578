"""How a request becomes live pictures: each pass is one readable function from a request to samplers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.core.errors import InvalidRequest
from sfumato.core.passes import Hires, MaskedContent, ResizeMode, Source
from sfumato.core.requests import LATENT_FACTOR, GenerationRequest
from sfumato.core.sampling import find_sampler
from sfumato.engine import masks
from sfumato.engine.addons import AddOns
from sfumato.engine.denoising import LivePicture
from sfumato.engine.enlarging import enlarged_latents, enlarged_picture, is_latent_upscaler
from sfumato.engine.families.autoencoder import Note, ignore
from sfumato.engine.families.base import LatentCodec, LoadedModel
from sfumato.engine.families.canvas import Canvas
from sfumato.engine.guidance import Errand, Guide, RowSteps, Successor, guided
from sfumato.engine.prompt.schedule import Calls
from sfumato.engine.prompting import calls_of, read_prompts
from sfumato.engine.sampling.inpainting import keeping
from sfumato.engine.sampling.noise import PictureNoise
from sfumato.engine.sampling.samplers import SAMPLERS
from sfumato.engine.sampling.schedules import sigmas_for
from sfumato.engine.sampling.steps import EstimateSteps, Steps

_WHOLE = 0.999
"""The greatest share of a schedule an image-to-image pass runs: at 1 nothing of the picture would be left to see."""


def prepare(
    job_id: str,
    request: GenerationRequest,
    model_of: Callable[[str], LoadedModel],
    pictures: Mapping[str, bytes],
    note: Note = ignore,
    add_ons: AddOns | None = None,
) -> list[LivePicture]:
    """Return the live pictures of a request, none begun yet; `pictures` are its stored sources by name.

    `note` is told what is done otherwise than asked. Raises `InvalidPrompt`, `UnusableAddOn`, `InvalidRequest`,
    `UnknownModel`, `ModelLoadFailed`.
    """
    model = model_of(request.model)
    refiner = model_of(request.refiner.model) if request.refiner else None
    if request.source is not None:
        return img2img(job_id, request, request.source, model, pictures, note, add_ons, refiner)
    if request.hires is not None:
        second_model = model_of(request.hires.model or request.model)
        return hires(job_id, request, request.hires, model, second_model, pictures, note, add_ons, refiner)
    return txt2img(job_id, request, model, note, add_ons, refiner)


def txt2img(
    job_id: str,
    request: GenerationRequest,
    model: LoadedModel,
    note: Note = ignore,
    add_ons: AddOns | None = None,
    refiner: LoadedModel | None = None,
) -> list[LivePicture]:
    """Return the live pictures of a text-to-image request, one per picture asked for, none begun yet.

    Picture i draws all its noise from a stream of its own, seeded `seed + i`, so that it is the picture a request
    for that seed alone would give. Raises `InvalidPrompt`, `UnusableAddOn`, `InvalidRequest`.
    """
    stage = Stage(request, model, note, add_ons, refiner=refiner)
    pictures = []
    for index in range(request.image_count):
        run = stage.from_noise(PictureNoise(request, index, stage.latent_shape))
        pictures.append(
            LivePicture(
                job_id=job_id, index=index, steps=stage.guided(run), evaluations=run.evaluations, codec=model.codec
            )
        )
    return pictures


def img2img(
    job_id: str,
    request: GenerationRequest,
    source: Source,
    model: LoadedModel,
    pictures: Mapping[str, bytes],
    note: Note = ignore,
    add_ons: AddOns | None = None,
    refiner: LoadedModel | None = None,
) -> list[LivePicture]:
    """Return live pictures that begin from given ones, in part noised (Meng et al. 2022, "SDEdit").

    With a mask only what it shows is painted: every estimate is mended with the source's latents elsewhere, and the
    finished picture with the source's pixels. Raises `InvalidRequest` for a mask that does not fit its picture.
    """
    stage = Stage(request, model, note, add_ons, refiner=refiner)
    begun: dict[str, tuple[masks.Prepared, Tensor]] = {}
    live = []
    for index in range(request.image_count):
        name = source.picture(index)
        if name not in begun:
            begun[name] = _encoded_source(request, source, pictures, name, model.codec, note)
        prepared, latents = begun[name]
        noise = PictureNoise(request, index, stage.latent_shape)
        mask = None if prepared.mask is None or source.inpainting is None else _latent_mask(prepared.mask, source)
        if mask is not None and source.inpainting is not None:
            latents = _with_content(latents, mask, source.inpainting.content, noise.start)
        run = stage.from_latents(latents, noise, source)
        if mask is not None:
            run = replace(run, steps=keeping(run.steps, latents, mask))
        live.append(
            LivePicture(
                job_id=job_id,
                index=index,
                steps=stage.guided(run, _channels(model, prepared, note)),
                evaluations=run.evaluations,
                codec=model.codec,
                finish=None if prepared.overlay is None else prepared.overlay.applied,
            )
        )
    return live


def hires(
    job_id: str,
    request: GenerationRequest,
    wanted: Hires,
    model: LoadedModel,
    second_model: LoadedModel,
    pictures: Mapping[str, bytes],
    note: Note = ignore,
    add_ons: AddOns | None = None,
    refiner: LoadedModel | None = None,
) -> list[LivePicture]:
    """Return live pictures made in two passes: small from noise, then enlarged, noised in part and denoised again."""
    first = Stage(request, model, note, add_ons)
    second = Stage(_second_request(request, wanted), second_model, note, add_ons, after=first, refiner=refiner)
    source = Source(pictures=(), strength=wanted.strength, runs_all_steps=True)
    live = []
    for index in range(request.image_count):
        run = first.from_noise(PictureNoise(request, index, first.latent_shape))
        noise = PictureNoise(second.request, index, second.latent_shape)
        again = second.from_latents(torch.zeros(second.latent_shape), noise, source)
        given = None if wanted.first_pass is None else masks.read_picture(pictures[wanted.first_pass])
        live.append(
            LivePicture(
                job_id=job_id,
                index=index,
                steps=_two_passes(first, run, second, noise, source, wanted, given),
                evaluations=(0 if given is not None else run.evaluations) + again.evaluations,
                codec=second_model.codec,
            )
        )
    return live


@dataclass(frozen=True)
class Run:
    """One sampler's run over one picture, and how often it will ask."""

    steps: Steps | EstimateSteps
    evaluations: int


class Stage:
    """What all pictures of one pass share: the model, the prompts, the sampler, and how it is guided.

    The prompts of a pass `after` another go on with its timeline.
    """

    def __init__(
        self,
        request: GenerationRequest,
        model: LoadedModel,
        note: Note = ignore,
        add_ons: AddOns | None = None,
        *,
        after: "Stage | None" = None,
        refiner: LoadedModel | None = None,
    ) -> None:
        self.request = request
        self.model = model
        self.info, self._schedule = find_sampler(request.sampler, request.schedule)
        self.sampler = SAMPLERS[self.info.name]
        self.calls: Calls = calls_of(request, after=after.calls if after else None)
        self._prompted = read_prompts(request, model, add_ons or AddOns(), self.calls)
        self._blank: Canvas | None = None
        self._refiner = Stage(request, refiner, note, add_ons, after=after) if refiner else None
        if refiner is not None and refiner.latent_channels != model.latent_channels:
            raise InvalidRequest(
                f"{refiner.name} cannot refine what {model.name} begins: their latents differ.",
                field="refiner_checkpoint",
            )
        for sentence in self._prompted.notes:
            note(sentence)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        request = self.request
        return self.model.latent_channels, request.height // LATENT_FACTOR, request.width // LATENT_FACTOR

    def from_noise(self, noise: PictureNoise) -> Run:
        """Run the whole schedule from a picture's starting noise."""
        sigmas = self._sigmas(self.request.steps)
        return self._run(self.sampler.start(noise.start, sigmas, self.request.sampler_options), sigmas, noise)

    def from_latents(self, latents: Tensor, noise: PictureNoise, source: Source) -> Run:
        """Run the end of a schedule, as much of it as `source` asks for, from latents with noise laid over them."""
        sigmas, noise_sigma = self._last_sigmas(source)
        if len(sigmas) < 2:
            return Run(_nothing_to_do(latents), 1)
        x = latents + noise.start * (noise_sigma * source.noise_multiplier + source.extra_noise)
        if self._counts_timesteps:  # the levels it runs begin one below the noise laid on
            x = x * ((1 + sigmas[0] ** 2) / (1 + noise_sigma**2)) ** 0.5
        return self._run(x, sigmas, noise)

    def guided(self, run: Run, channels: Tensor | None = None) -> RowSteps:
        """Turn a sampler's asks into rows for the network; `channels` are what an inpainting network sees besides."""
        return guided(
            run.steps,
            self._prompted.network,
            self._guide(channels),
            self._scale,
            skips=self.request.guidance_skips,
            evaluations=run.evaluations,
            wants_unguided=self.sampler.wants_unguided,
            successor=self._successor(),
        )

    @property
    def _scale(self) -> float:
        scale = 1.0 if self.model.guidance_width else self.request.guidance_scale
        return scale / self.sampler.guidance_divisor

    def _guide(self, channels: Tensor | None) -> Guide:
        canvas = self._canvas(channels)
        negative = partial(canvas.conditioned, negative_prompt=self.request.negative_prompt)
        return self._prompted.guide.map(canvas.conditioned, negative)

    def _successor(self) -> Successor | None:
        refiner, wanted = self._refiner, self.request.refiner
        if refiner is None or wanted is None:
            return None
        levels, switch_at = self.model.denoiser.levels, wanted.switch_at
        count = len(levels.sigmas)

        def takes_over(sigma: float) -> bool:
            timestep = int((levels.sigmas - sigma).abs().argmin())
            return (count - 1 - timestep) / count >= switch_at

        return Successor(
            network=refiner._prompted.network, guide=refiner._guide(None), scale=refiner._scale, takes_over=takes_over
        )

    def _canvas(self, channels: Tensor | None) -> Canvas:
        request = self.request
        if channels is None and self._blank is not None:
            return self._blank
        canvas = self.model.canvas(
            request.width, request.height, guidance_scale=request.guidance_scale, channels=channels
        )
        if channels is None:
            self._blank = canvas
        return canvas

    @property
    def _counts_timesteps(self) -> bool:
        return self.info.has_own_levels and self.sampler.starts_at_unit_variance

    def _last_sigmas(self, source: Source) -> tuple[list[float], float]:
        """Return the levels of a partial run and the level of the noise it begins with (docs/sdapi.md, "img2img")."""
        steps, strength = self.request.steps, min(source.strength, _WHOLE)
        count = steps if not source.runs_all_steps else int(steps / strength) if strength > 0 else 0
        passed = steps - 1 if source.runs_all_steps else int(strength * steps)
        if count == 0 or (strength == 0):
            return [], 0.0
        sigmas = self._sigmas(count)
        if self._counts_timesteps:
            first = max(len(sigmas) - 1 - passed, 0)
            return sigmas[len(sigmas) - passed :] if passed else [], sigmas[first]
        first = max(count - passed - 1, 0)
        return sigmas[first:], sigmas[first]

    def _sigmas(self, steps: int) -> list[float]:
        request = self.request
        sigmas: list[float] = sigmas_for(
            self.info,
            self._schedule.label,
            self.model.denoiser.levels,
            steps,
            request.schedule_options,
            request.sampler_options,
        ).tolist()
        return sigmas

    def _run(self, x: Tensor, sigmas: list[float], noise: PictureNoise) -> Run:
        steps = self.sampler.run(x, sigmas, self.request.sampler_options, noise, self.model.denoiser.levels)
        return Run(steps, self.sampler.evaluations(sigmas))


def _second_request(request: GenerationRequest, wanted: Hires) -> GenerationRequest:
    return replace(
        request,
        width=wanted.width,
        height=wanted.height,
        steps=wanted.steps or request.steps,
        sampler=wanted.sampler or request.sampler,
        schedule=wanted.schedule or request.schedule,
        prompt=wanted.prompt or request.prompt,
        negative_prompt=wanted.negative_prompt or request.negative_prompt,
        model=wanted.model or request.model,
        hires=None,
    )


def _two_passes(
    first: Stage,
    run: Run,
    second: Stage,
    noise: PictureNoise,
    source: Source,
    wanted: Hires,
    given: Image.Image | None,
) -> RowSteps:
    size = wanted.enlarged_width, wanted.enlarged_height
    codec, next_codec = first.model.codec, second.model.codec
    if given is not None:
        picture = given
        (enlarged,) = yield Errand(lambda: _encoded(enlarged_picture(picture, size, wanted.upscaler), next_codec))
    else:
        latents = yield from first.guided(run)
        if is_latent_upscaler(wanted.upscaler) and codec.is_compatible(next_codec):
            enlarged = enlarged_latents(latents, size, wanted.upscaler)
        else:
            (enlarged,) = yield Errand(lambda: _through_pixels(latents, size, wanted.upscaler, codec, next_codec))
    return (yield from second.guided(second.from_latents(_cropped(enlarged, second.latent_shape), noise, source)))


def _through_pixels(
    latents: Tensor, size: tuple[int, int], upscaler: str, codec: LatentCodec, next_codec: LatentCodec
) -> Tensor:
    picture = Image.fromarray(codec.decode(latents.unsqueeze(0))[0].numpy())
    return _encoded(enlarged_picture(picture, size, upscaler), next_codec)


def _encoded(picture: Image.Image, codec: LatentCodec, note: Note = ignore) -> Tensor:
    """Return a picture's latents (C, H/8, W/8); rows and columns beyond a multiple of 8 are left out."""
    width, height = (side // LATENT_FACTOR * LATENT_FACTOR for side in picture.size)
    pixels = torch.from_numpy(np.array(picture.crop((0, 0, width, height))))
    return codec.encode(pixels.unsqueeze(0), note=note)[0]


def _cropped(latents: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Cut latents down to a shape about their middle; of an odd difference the far side loses the more."""
    top, left = ((have - want) // 2 for have, want in zip(latents.shape[1:], shape[1:], strict=True))
    return latents[:, top : top + shape[1], left : left + shape[2]]


def _encoded_source(
    request: GenerationRequest,
    source: Source,
    pictures: Mapping[str, bytes],
    name: str,
    codec: LatentCodec,
    note: Note,
) -> tuple[masks.Prepared, Tensor]:
    """Return a source at the request's size, in pixels and in latents."""
    size = request.width, request.height
    image, inpainting = masks.read_picture(pictures[name]), source.inpainting
    mask = None
    if inpainting is not None:
        mask = masks.read_mask(
            pictures[inpainting.mask], is_soft=inpainting.is_soft, is_inverted=inpainting.is_inverted
        )
        mask = masks.blurred(mask, inpainting.blur_x, inpainting.blur_y)
    prepared = masks.prepared(
        image,
        size,
        source.resize_mode,
        mask,
        only_masked=inpainting is not None and inpainting.only_masked,
        padding=inpainting.padding if inpainting else 0,
        fills=inpainting is not None and inpainting.content is MaskedContent.FILL,
    )
    if source.resize_mode is ResizeMode.LATENT and prepared.overlay is None:
        return prepared, enlarged_latents(_encoded(image, codec, note), size, "Latent")
    return prepared, _encoded(prepared.picture, codec, note)


def _channels(model: LoadedModel, prepared: masks.Prepared, note: Note) -> Tensor | None:
    """Return what an inpainting network is shown of a source with a mask."""
    if not model.takes_picture or prepared.mask is None:
        return None
    mask = torch.from_numpy(np.array(prepared.mask, dtype=np.float32) / 255)
    return model.picture_channels(torch.from_numpy(np.array(prepared.picture)), mask, note)


def _latent_mask(mask: Image.Image, source: Source) -> Tensor:
    """Return a mask's cells (1, h, w) in 0..1, 1 where to paint."""
    size = mask.width // LATENT_FACTOR, mask.height // LATENT_FACTOR
    cells = torch.from_numpy(np.array(mask.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255)
    is_soft = source.inpainting is not None and source.inpainting.is_soft
    return (cells if is_soft else cells.round()).unsqueeze(0)


def _with_content(latents: Tensor, mask: Tensor, content: MaskedContent, noise: Tensor) -> Tensor:
    if content is MaskedContent.NOISE:
        return latents * (1 - mask) + noise * mask
    if content is MaskedContent.NOTHING:
        return latents * (1 - mask)
    return latents


def _nothing_to_do(latents: Tensor) -> Steps:
    return latents
    yield latents, 0.0
