"""One job on one engine: its pictures on their way from pixels to stored objects."""

import asyncio
from dataclasses import dataclass, field

import structlog

from sfumato import __version__
from sfumato.core.jobs import Output
from sfumato.core.messages import ImageReady
from sfumato.core.models import ModelInfo
from sfumato.scheduling.progress import ProgressBoard
from sfumato.scheduling.queue import RunningJob
from sfumato.storage import images, infotext
from sfumato.storage.jobs import ClaimedJob
from sfumato.storage.objects import ObjectStore
from sfumato.storage.tables import utc_now

CONTENT_TYPE = "image/png"

logger = structlog.get_logger(__name__)


@dataclass(kw_only=True, eq=False)
class Run:
    """A claimed job and what has become of its pictures.

    A run is abandoned when its job was ended by someone else, by a cancel or a timeout: the engine may still go on
    for a moment, but nothing of what it sends is wanted. One is interrupted when the pictures made so far are wanted.
    """

    claimed: ClaimedJob
    model: ModelInfo
    is_abandoned: bool = False
    is_interrupted: bool = False
    outputs: dict[int, Output] = field(default_factory=dict)
    _uploads: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def as_running(self) -> RunningJob:
        job = self.claimed.job
        return RunningJob(
            id=job.id,
            user_id=job.user_id,
            image_count=job.request.image_count,
            was_interrupted=job.attempts > 1,
        )

    def keep(self, image: ImageReady, objects: ObjectStore, board: ProgressBoard) -> None:
        """Encode and store a picture in the background, so that the engine's messages are not held up."""
        is_expected = 0 <= image.index < self.claimed.job.request.image_count and image.index not in self._uploads
        if is_expected and not self.is_abandoned:
            self._uploads[image.index] = asyncio.create_task(self._store(image, objects, board))

    async def stored(self) -> list[Output]:
        """Wait for all pictures kept so far, and return those that are stored, in order of index."""
        await asyncio.gather(*self._uploads.values())
        return [self.outputs[index] for index in sorted(self.outputs)]

    async def discard(self, objects: ObjectStore) -> None:
        """Remove what was stored of a job that nobody wants any more."""
        for output in await self.stored():
            await objects.delete(output.object_key)

    async def _store(self, image: ImageReady, objects: ObjectStore, board: ProgressBoard) -> None:
        try:
            output, png = await self._encode(image)
            await objects.put(output.object_key, png, CONTENT_TYPE)
        except Exception:  # a full disk, an unreachable store: this picture counts as one that did not come
            logger.exception("a picture could not be stored", job_id=str(self.claimed.job.id), index=image.index)
            return
        self.outputs[image.index] = output
        board.image_done(output.job_id, output.index)

    async def _encode(self, image: ImageReady) -> tuple[Output, bytes]:
        job = self.claimed.job
        text = infotext.build(job.request, index=image.index, model=self.model, version=__version__)
        png = await asyncio.to_thread(
            images.encode_png, image.pixels, image.width, image.height, {images.PARAMETERS_KEY: text}
        )
        output_id = self.claimed.output_ids[image.index]
        now = utc_now()
        output = Output(
            id=output_id,
            job_id=job.id,
            index=image.index,
            seed=job.request.seed + image.index,
            width=image.width,
            height=image.height,
            object_key=f"{output_id}.png",
            content_type=CONTENT_TYPE,
            size_bytes=len(png),
            infotext=text,
            created_at=now,
            updated_at=now,
        )
        return output, png
