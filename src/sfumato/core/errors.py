"""The one tree of errors: a code, an HTTP status, a sentence for the user and what to do next.

Knows nothing of any wire: each dialect under `sfumato.api` renders these in its own shape.
`docs/errors.md` lists every code; a test compares the two.
"""

from typing import ClassVar


class SfumatoError(Exception):
    """Something the caller can be told about.

    `message` is one sentence for a person; `hint` says what to do next and may be empty.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidRequest(SfumatoError):
    """The request cannot be carried out as written; `field` names the part at fault, if one is."""

    code = "invalid_request"
    status = 400

    def __init__(self, message: str, *, field: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class InvalidPrompt(InvalidRequest):
    """The prompt does not parse, or uses syntax that this version does not carry out."""

    code = "invalid_prompt"


class UnusableAddOn(InvalidRequest):
    """A LoRA or an embedding that the prompt names is damaged, a pickle, or made for another family of models."""

    code = "unusable_add_on"


class UnknownModel(InvalidRequest):
    """No model of that id or name is installed."""

    code = "unknown_model"


class UnknownSampler(InvalidRequest):
    """No sampler or schedule of that name exists."""

    code = "unknown_sampler"


class NotSupported(InvalidRequest):
    """A known field or route asks for something this version does not do."""

    code = "not_supported"


class Unauthorized(SfumatoError):
    """No key was given, or it is malformed, unknown or revoked."""

    code = "unauthorized"
    status = 401


class Forbidden(SfumatoError):
    """The key is good, but its owner may not do this."""

    code = "forbidden"
    status = 403


class NotFound(SfumatoError):
    """There is no such thing, or it is not the caller's."""

    code = "not_found"
    status = 404


class Conflict(SfumatoError):
    """The thing exists already, or is in a state that does not allow this."""

    code = "conflict"
    status = 409


class InsufficientCredits(SfumatoError):
    """The caller's spendable credits are fewer than the cost; nothing was charged."""

    code = "insufficient_credits"
    status = 402


class BodyTooLarge(SfumatoError):
    """The request body is over the limit."""

    code = "body_too_large"
    status = 413


class QueueFull(SfumatoError):
    """Too many jobs are waiting, of this user or of all."""

    code = "queue_full"
    status = 429


class EngineUnavailable(SfumatoError):
    """No engine can serve the request now."""

    code = "engine_unavailable"
    status = 503


class ModelLoadFailed(SfumatoError):
    """The model's files are missing, damaged, of an unknown family, or not safe to read."""

    code = "model_load_failed"
    status = 500


class OutOfMemory(SfumatoError):
    """The device has too little memory for this request."""

    code = "out_of_memory"
    status = 500


class GenerationFailed(SfumatoError):
    """The engine could not finish the job; its credits are refunded."""

    code = "generation_failed"
    status = 500


class GenerationCanceled(SfumatoError):
    """The job was canceled before it finished."""

    code = "generation_canceled"
    status = 409


class GenerationTimeout(SfumatoError):
    """The job took longer than the caller may wait; it was canceled and its credits are refunded."""

    code = "generation_timeout"
    status = 504


def error_classes() -> dict[str, type[SfumatoError]]:
    """Return every class of the tree by its code."""
    found: dict[str, type[SfumatoError]] = {}
    waiting: list[type[SfumatoError]] = [SfumatoError]
    while waiting:
        cls = waiting.pop()
        found[cls.code] = cls
        waiting.extend(cls.__subclasses__())
    return found


def error_from_code(code: str, message: str) -> SfumatoError:
    """Rebuild an error that crossed a process or was stored with a job."""
    return error_classes().get(code, GenerationFailed)(message)
