"""The pages about the wires name every field and every text that can come back."""

import re
from pathlib import Path

import pytest

from sfumato.api.sdapi.fields import Txt2ImgBody
from sfumato.api.stablecog.queries import LATER_FILTERS
from sfumato.api.stablecog.requests import CreateBody
from sfumato.api.stablecog.schedulers import SCHEDULERS, Scheduler
from sfumato.core.sampling import SAMPLERS, SCHEDULES

DOCS = Path(__file__).parents[2] / "docs"
STABLECOG = (DOCS / "stablecog.md").read_text()
SDAPI = (DOCS / "sdapi.md").read_text()


@pytest.mark.parametrize("field", CreateBody.model_fields)
def test_every_field_of_a_stablecog_generation_is_documented(field: str) -> None:
    assert f"`{field}`" in STABLECOG


@pytest.mark.parametrize("name", [name for name in LATER_FILTERS if not name.startswith("aesthetic_")])
def test_every_refused_filter_is_documented(name: str) -> None:
    assert f"`{name}`" in STABLECOG


@pytest.mark.parametrize("field", Txt2ImgBody.model_fields)
def test_every_field_of_txt2img_is_documented(field: str) -> None:
    assert re.search(rf"`{field}`", SDAPI)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: scheduler.name)
def test_every_scheduler_is_documented_with_its_id(scheduler: Scheduler) -> None:
    assert f"| `{scheduler.name}` | `{scheduler.id}` |" in STABLECOG


def test_every_sampler_and_schedule_is_documented() -> None:
    for info in SAMPLERS:
        assert info.name in SDAPI
    for schedule in SCHEDULES:
        assert schedule.label in SDAPI
