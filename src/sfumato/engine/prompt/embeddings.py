"""Textual inversions on disk (Gal et al. 2022): the three layouts of safetensors they come in. Pickles are not read."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sfumato.core.errors import UnusableAddOn
from sfumato.engine.prompt.encode import Embedding

_KEYS_OF_SDXL = {"clip_l", "clip_g"}
_MOST_VECTORS = 75


def read_embedding(name: str, path: Path) -> Embedding:
    """Read a file of `emb_params`, of SDXL's `clip_l` and `clip_g`, or of one tensor under its token's name.

    Raises `UnusableAddOn`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UnusableAddOn(f"The embedding {name} cannot be read: {error}.") from error
    if "emb_params" in tensors:
        tables = [tensors["emb_params"]]
    elif set(tensors) == _KEYS_OF_SDXL or len(tensors) == 1:
        tables = list(tensors.values())
    else:
        raise UnusableAddOn(f"The embedding {name} holds {len(tensors)} tensors; which is meant is not known.")
    return Embedding(name, _vectors(name, [table.unsqueeze(0) if table.ndim == 1 else table for table in tables]))


def _vectors(name: str, tables: list[Tensor]) -> tuple[dict[int, Tensor], ...]:
    """Turn a table (n, width) for each text network into n vectors, each for all networks."""
    counts = {table.shape[0] for table in tables}
    if len(counts) != 1 or any(table.ndim != 2 or not table.is_floating_point() for table in tables):
        raise UnusableAddOn(f"The embedding {name} does not hold a table of vectors.")
    (count,) = counts
    if not 1 <= count <= _MOST_VECTORS:
        raise UnusableAddOn(f"The embedding {name} has {count} vectors; 1 to {_MOST_VECTORS} fit in a prompt.")
    return tuple({int(table.shape[1]): table[index] for table in tables} for index in range(count))
