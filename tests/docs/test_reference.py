"""The reference pages say what the program does: every setting, option, error, metric and route has its line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from fastapi.routing import APIRoute

from sfumato.api.app import create_app
from sfumato.api.services import Services
from sfumato.cli.app import app
from sfumato.core.errors import error_classes
from sfumato.core.sampling import SAMPLERS, SCHEDULES
from sfumato.scheduling.metrics import Metrics
from sfumato.settings import ENV_PREFIX, Settings
from tests.factories import make_registry, make_settings

ROOT = Path(__file__).parents[2]
HTTP_PAGES = ("http.md", "stablecog.md", "sdapi.md")
FLAGS = {"data_dir": "--data"}
"""Settings whose flag is not their own name."""


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(name: str) -> dict[str, list[str]]:
    """The rows of a page's tables by the text of their first cell, without backticks."""
    found: dict[str, list[str]] = {}
    for line in page(name).splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            found[cells[0].strip("` ")] = cells
    return found


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def options(command: Any) -> list[str]:
    return [word for parameter in command.params for word in parameter.opts if word.startswith("-")]


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_row(name: str) -> None:
    key = "-" if name == "config" else name
    row = rows("settings.md")[key]
    assert row[1] == f"`{ENV_PREFIX}{name.upper()}`"
    flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
    assert (f"`{flag}`" in row[2]) == (flag in options(COMMANDS["serve"]))


@pytest.mark.parametrize(
    ("name", "default"),
    [(name, field.default) for name, field in Settings.model_fields.items() if field.default_factory is None],
)
def test_every_default_is_the_real_one(name: str, default: object) -> None:
    shown = rows("settings.md")["-" if name == "config" else name][3]
    expected = {None: "none", (): "none", False: "`false`"}.get(cast(Any, default), f"`{default}`")
    assert shown == expected


def test_no_row_is_about_a_setting_that_is_gone() -> None:
    names = set(rows("settings.md")) - {"TOML key", "-"}
    assert names == set(Settings.model_fields) - {"config"}


def test_no_other_variable_is_read() -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields} | {ENV_PREFIX}
    for path in (ROOT / "src").rglob("*.py"):
        for word in re.findall(rf"\b{ENV_PREFIX}[A-Z_]*", path.read_text(encoding="utf-8")):
            assert word in known, f"{path} reads {word}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_in_its_section(name: str) -> None:
    sections = re.split(r"^## ", page("cli.md"), flags=re.MULTILINE)
    section = next(text for text in sections if re.match(rf"`sfumato {name}[ `]", text))
    for option in options(COMMANDS[name]):
        assert re.search(rf"`{option}[ `]", section), f"{option} is missing"
    documented = set(re.findall(r"`(--[a-z-]+)[ `]", re.sub(r"`sfumato [^`]*`", "", section)))
    assert documented <= set(options(COMMANDS[name])) | {"--count"}


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    found = re.findall(r"^## `sfumato ([a-z -]+?)(?: [A-Z][A-Z ]*)?`$", page("cli.md"), flags=re.MULTILINE)
    assert sorted(found) == sorted(COMMANDS)


def test_every_sampler_and_schedule_is_named() -> None:
    for name in [*(info.name for info in SAMPLERS), *(info.label for info in SCHEDULES)]:
        assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", page("cli.md")), name


def test_every_error_has_its_row_with_its_status_and_no_other_row_is_there() -> None:
    shown = {code: int(cells[1]) for code, cells in rows("errors.md").items() if code != "code"}
    assert shown == {code: cls.status for code, cls in error_classes().items()}


def test_every_error_says_what_to_do() -> None:
    for code, cells in rows("errors.md").items():
        assert len(cells) == 4, code
        assert all(cells), code


def test_every_metric_has_its_row_with_its_kind_and_labels() -> None:
    shown = {name: (cells[1], re.findall(r"\w+", cells[2])) for name, cells in rows("metrics.md").items()}
    shown.pop("metric")
    real = {}
    metrics = Metrics(lambda: 0)
    for collector in metrics.registry._collector_to_names:
        for metric in collector.describe():
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            real[name] = (metric.type, list(getattr(collector, "_labelnames", ())))
    assert shown == real


def pattern_of(path: str) -> str:
    """A parameter of a path stands in the pages as `<its name>`, in braces or as three dots."""
    parts = re.split(r"\{[^}]*\}", path.removesuffix("/"))
    return r"(?:\{[^}]*\}|<[^>]*>|\.\.\.)".join(map(re.escape, parts)) + r"(?![\w-])"


def test_every_route_is_in_the_pages_about_http(tmp_path: Path) -> None:
    services = Services(
        settings=make_settings(tmp_path),
        db=cast(Any, None),
        objects=cast(Any, None),
        registry=make_registry(),
        service=cast(Any, None),
    )
    text = "".join(page(name) for name in HTTP_PAGES)
    paths = [route.path for route in create_app(services).routes if isinstance(route, APIRoute)]
    assert paths
    assert [path for path in paths if not re.search(pattern_of(path), text)] == []
