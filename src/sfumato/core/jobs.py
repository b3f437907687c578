"""A job: one accepted `GenerationRequest` on its way to pictures, as a row and as its owner sees it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sfumato.core.requests import GenerationRequest


class JobStatus(StrEnum):
    """Where a job stands. It moves forward only; RUNNING goes back to QUEUED when its engine died."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED)


class Dialect(StrEnum):
    """The wire a job came in by."""

    STABLECOG = "stablecog"
    SDAPI = "sdapi"
    NATIVE = "native"


@dataclass(frozen=True, kw_only=True)
class Output:
    """One stored picture. `index` counts from 0 within its job; `object_key` names it in the object store."""

    id: UUID
    job_id: UUID
    index: int
    seed: int
    width: int
    height: int
    object_key: str
    content_type: str
    size_bytes: int
    infotext: str
    created_at: datetime
    updated_at: datetime
    is_favorited: bool = False
    gallery_status: str = "not_submitted"
    was_auto_submitted: bool = False
    is_public: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job and, once it succeeded, its outputs in order of index.

    `notes` are the engine's sentences about what was done otherwise than asked.
    """

    id: UUID
    user_id: UUID
    api_key_id: UUID | None
    dialect: Dialect
    status: JobStatus
    request: GenerationRequest
    cost_credits: int
    attempts: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error_code: str | None = None
    error_message: str | None = None
    notes: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
