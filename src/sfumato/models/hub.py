"""Models by Hugging Face id: fetched into the hub's own cache, after which they are ordinary diffusers folders."""

import re
from pathlib import Path

from sfumato.core.errors import ModelLoadFailed

_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Folders of the diffusers layout only: the top of a repository often holds the same weights again as single files.
_ALLOWED = ("model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors")
_IGNORED = ("safety_checker/*", "*.fp16.*", "*.non_ema.*")


def is_hub_id(text: str) -> bool:
    """Say whether a text has the form of a Hugging Face id, `owner/name`."""
    return _ID.fullmatch(text) is not None and not text.startswith(".")


def fetch(hub_id: str) -> Path:
    """Return the local folder of a hub model, downloading what is missing (never pickles).

    Raises `ModelLoadFailed` when there is no such model, it is gated, or the hub cannot be reached and the model is
    not in the cache.
    """
    from huggingface_hub import snapshot_download  # takes half a second to import; most installations never need it

    try:
        folder = snapshot_download(hub_id, allow_patterns=list(_ALLOWED), ignore_patterns=list(_IGNORED))
    except Exception as error:  # its own errors, OSError, ValueError, and those of whichever HTTP client it uses
        raise ModelLoadFailed(
            f"{hub_id} is no file or folder here and could not be fetched from Hugging Face ({_reason(error)}).",
            hint="Check the spelling and the network, or give the path of a copy on this machine.",
        ) from error
    return Path(folder)


def _reason(error: Exception) -> str:
    reasons = {
        "GatedRepoError": "access must be granted on its page first",
        "RepositoryNotFoundError": "no public model of this id",
        "LocalEntryNotFoundError": "the hub cannot be reached and nothing is cached",
        "OfflineModeIsEnabled": "offline mode is on and nothing is cached",
    }
    name = type(error).__name__
    return reasons.get(name, name)
