"""Which device and number format the networks run on."""

import gc
from dataclasses import dataclass

import psutil
import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Device:
    """A device, and the number format of the networks on it; sampler state is float32 everywhere."""

    torch_device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto") -> "Device":
        """Return the device asked for, or CUDA where present, else the CPU, in the fastest format it has units for.

        Raises `ValueError` for CUDA where there is none and for unknown names.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be auto, cpu or cuda, not {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device cuda was asked for, but PyTorch sees no CUDA device")
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if precision != "auto" and precision not in PRECISIONS:
            raise ValueError(f"precision must be auto or one of {', '.join(PRECISIONS)}, not {precision!r}")
        dtype = _fastest(name) if precision == "auto" else PRECISIONS[precision]
        return cls(torch.device(name), dtype)

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def is_cpu(self) -> bool:
        return self.torch_device.type == "cpu"

    @property
    def memory_total_bytes(self) -> int:
        if self.is_cpu:
            return int(psutil.virtual_memory().total)
        return int(torch.cuda.get_device_properties(self.torch_device).total_memory)


def release_memory() -> None:
    """Give what nothing refers to any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that a device's memory did not suffice; the CPU's has no class of its own."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _fastest(device: str) -> torch.dtype:
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # Without bfloat16 units the CPU emulates it, slower than float32 runs.
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
