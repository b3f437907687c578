"""Every setting of a server or a command: its name, type, bounds and default.

Order of precedence: command-line flags, then `SFUMATO_*` environment variables, then a TOML file, then the defaults.
The file is the one named by `--config` or `SFUMATO_CONFIG`, else `sfumato.toml` in the data folder when it exists.
`docs/settings.md` has one line per setting; a test compares the two.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from sfumato.core.errors import InvalidRequest

ENV_PREFIX = "SFUMATO_"
FILE_NAME = "sfumato.toml"
_DEFAULT_DATA_DIR = Path("data")


def _default_database_url(fields: dict[str, Any]) -> str:
    return f"sqlite+aiosqlite:///{_data_folder(fields) / 'sfumato.db'}"


def _default_objects_url(fields: dict[str, Any]) -> str:
    return (_data_folder(fields) / "objects").as_uri()


def _data_folder(fields: dict[str, Any]) -> Path:
    # pydantic leaves a field that failed its own checks out of `fields`; its error is reported, not this default.
    return Path(fields.get("data_dir", _DEFAULT_DATA_DIR)).absolute()


class Settings(BaseSettings):
    """What an installation is told from outside. Frozen; build it with `load` to get one-sentence errors.

    The two URLs may carry passwords: they are left out of `repr`, and errors never quote a value given.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        protected_namespaces=(),
    )

    config: Path | None = None
    data_dir: Path = _DEFAULT_DATA_DIR
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    public_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    database_url: str = Field(default_factory=_default_database_url, min_length=1, repr=False)
    objects_url: str = Field(default_factory=_default_objects_url, min_length=1, repr=False)

    model: Annotated[tuple[str, ...], NoDecode] = ()
    models_dir: Path | None = None
    extra_model_paths: Path | None = None
    scan_hub_cache: bool = False
    lora_dir: Path | None = None
    embeddings_dir: Path | None = None
    styles_file: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    initial_admin_credits: int = Field(default=1_000_000, ge=0)
    initial_user_credits: int = Field(default=50, ge=0)

    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    max_queued_jobs: int = Field(default=1000, ge=1)
    max_queued_jobs_per_user: int = Field(default=50, ge=1)
    max_images_in_flight: int = Field(default=16, ge=1)
    max_job_attempts: int = Field(default=2, ge=1)
    generation_timeout_seconds: float = Field(default=240.0, gt=0, allow_inf_nan=False)
    sdapi_timeout_seconds: float = Field(default=3600.0, gt=0, allow_inf_nan=False)
    sdapi_open_on_loopback: bool = False
    sdapi_takes_unknown_samplers: bool = False

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """Read all sources; a flag of None counts as not given.

        Raises `InvalidRequest`, whose `field` is the setting at fault when one is.
        """
        try:
            return cls(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "settings"
            if first["type"] == "extra_forbidden":
                raise InvalidRequest(f"There is no setting named {name!r}.", field=name) from None
            raise InvalidRequest(f"Setting {name}: {_sentence(first['msg'])}", field=name) from None
        except SettingsError as error:
            raise InvalidRequest(f"A setting cannot be read: {error}.") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the sources in the order the module describes; no `.env` file and no secrets folder is read."""
        return init_settings, env_settings, _TomlSource(settings_cls, init_settings())

    @field_validator("model", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        """Take a comma-separated text or a JSON list, as an environment variable gives them."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator(
        "config", "data_dir", "models_dir", "extra_model_paths", "lora_dir", "embeddings_dir", "styles_file"
    )
    @classmethod
    def _expand_home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator("public_url")
    @classmethod
    def _drop_final_slash(cls, value: str | None) -> str | None:
        return value.rstrip("/") if value is not None else None

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class _TomlSource(PydanticBaseSettingsSource):
    """The keys of the settings file; its place depends on the sources above it, so `flags` are passed in."""

    def __init__(self, settings_cls: type[BaseSettings], flags: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._flags = flags

    def get_field_value(self, field: object, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # __call__ answers for all fields at once

    def __call__(self) -> dict[str, Any]:
        named = self._flags.get("config") or os.environ.get(f"{ENV_PREFIX}CONFIG")
        folder = self._flags.get("data_dir") or os.environ.get(f"{ENV_PREFIX}DATA_DIR") or _DEFAULT_DATA_DIR
        path = Path(named or Path(folder) / FILE_NAME).expanduser()
        if not named and not path.is_file():
            return {}
        return _read_toml(path)


def _read_toml(path: Path) -> dict[str, Any]:
    """Return the file's keys. Raises `InvalidRequest` when it cannot be read or holds what no file may set."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidRequest(f"The settings file {path} cannot be read: {reason}.", field="config") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both this
        raise InvalidRequest(f"The settings file {path} is not TOML: {error}.", field="config") from None
    if "config" in found:
        raise InvalidRequest("The settings file cannot name another settings file.", field="config")
    return found


def _sentence(message: str) -> str:
    # pydantic puts "Value error, " before what a validator raised.
    text = message.removeprefix("Value error, ").removesuffix(".")
    return f"{text[:1].lower()}{text[1:]}."
