"""The identifiers under which this wire knows our samplers.

Where the hosted service has the same thing, its identifier and name are used, so that a stored `scheduler_id` keeps
its meaning; others get an identifier derived from their name.
"""

from dataclasses import dataclass
from uuid import UUID

from sfumato.core.ids import derived_id
from sfumato.core.sampling import AUTOMATIC


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """A sampler with a schedule, as `available_schedulers` lists it.

    The hosted service builds its schedulers without Karras' sigmas, so "DPM++ 2M" is spaced uniformly here.
    """

    id: UUID
    name: str
    sampler: str
    schedule: str = "Uniform"


SCHEDULERS: tuple[Scheduler, ...] = (
    Scheduler(id=UUID("6fb13b76-9900-4fa4-abf8-8f843e034a7f"), name="K_EULER", sampler="Euler"),
    Scheduler(id=UUID("af2679a4-dbbb-4950-8c06-c3bb15416ef6"), name="K_EULER_ANCESTRAL", sampler="Euler a"),
    Scheduler(id=UUID("9d175114-9a26-4371-861c-729ba9ecb4da"), name="DPM++_2M", sampler="DPM++ 2M"),
    Scheduler(id=UUID("82cf78dd-6afb-48cc-aca6-14224cca6950"), name="DDIM", sampler="DDIM", schedule=AUTOMATIC),
    Scheduler(id=derived_id("scheduler", "HEUN"), name="HEUN", sampler="Heun"),
    Scheduler(id=UUID("55027f8b-f046-4e71-bc51-53d5448661e0"), name="K_LMS", sampler="LMS"),
    Scheduler(id=UUID("cc1b8dbf-0aec-4e52-8110-8082506fb7ba"), name="DDPM", sampler="DDPM", schedule=AUTOMATIC),
    Scheduler(id=UUID("01e94c28-501d-4c6d-8f00-079f3230bf58"), name="UNI_PC", sampler="UniPC", schedule=AUTOMATIC),
    Scheduler(id=derived_id("scheduler", "PNDM"), name="PNDM", sampler="PLMS", schedule=AUTOMATIC),
    Scheduler(id=derived_id("scheduler", "DPM++_2S"), name="DPM++_2S", sampler="DPM++ 2S"),
    Scheduler(id=derived_id("scheduler", "DEIS"), name="DEIS", sampler="DEIS"),
)
DEFAULT_SCHEDULER = SCHEDULERS[0]


def scheduler_or_default(scheduler_id: UUID | None) -> Scheduler:
    """Return the scheduler of this identifier; the default for none or an unknown one, as the hosted service does."""
    return next((item for item in SCHEDULERS if item.id == scheduler_id), DEFAULT_SCHEDULER)


def scheduler_of(sampler: str) -> Scheduler:
    """Return the scheduler that stands for a sampler's name, whatever wire the job came by."""
    return next((item for item in SCHEDULERS if item.sampler == sampler), DEFAULT_SCHEDULER)
