"""How a request becomes live pictures: each pass is one readable function from a request to samplers."""

from sfumato.core.requests import LATENT_FACTOR, GenerationRequest
from sfumato.core.sampling import find_sampler
from sfumato.engine.denoising import LivePicture
from sfumato.engine.families.base import LoadedModel
from sfumato.engine.guidance import Network, guided
from sfumato.engine.sampling.noise import PictureNoise
from sfumato.engine.sampling.samplers import SAMPLERS
from sfumato.engine.sampling.schedules import sigmas_for


def txt2img(job_id: str, request: GenerationRequest, model: LoadedModel) -> list[LivePicture]:
    """Return the live pictures of a text-to-image request, one per picture asked for, none begun yet.

    Picture i draws all its noise from a stream of its own, seeded `seed + i`, so that it is the picture a request
    for that seed alone would give. Raises `InvalidPrompt`, `InvalidRequest`.
    """
    canvas = model.canvas(request.width, request.height, guidance_scale=request.guidance_scale)
    scale = 1.0 if model.guidance_width else request.guidance_scale
    positive = canvas.conditioned(model.prompts.encode(request.prompt, request.prompt_syntax))
    negative = canvas.conditioned(
        model.prompts.encode(request.negative_prompt, request.prompt_syntax), negative_prompt=request.negative_prompt
    )
    info, schedule = find_sampler(request.sampler, request.schedule)
    sampler = SAMPLERS[info.name]
    options = request.sampler_options
    sigmas = sigmas_for(
        info, schedule.label, model.denoiser.levels, request.steps, request.schedule_options, options
    ).tolist()
    evaluations = sampler.evaluations(sigmas)
    shape = (model.latent_channels, request.height // LATENT_FACTOR, request.width // LATENT_FACTOR)
    network = Network(model.name, model.denoiser.denoise)
    pictures = []
    for index in range(request.image_count):
        noise = PictureNoise(request, index, shape)
        steps = sampler.run(sampler.start(noise.start, sigmas, options), sigmas, options, noise, model.denoiser.levels)
        pictures.append(
            LivePicture(
                job_id=job_id,
                index=index,
                steps=guided(
                    steps,
                    network,
                    positive,
                    negative,
                    scale / sampler.guidance_divisor,
                    skips=request.guidance_skips,
                    evaluations=evaluations,
                    wants_unguided=sampler.wants_unguided,
                ),
                evaluations=evaluations,
            )
        )
    return pictures
