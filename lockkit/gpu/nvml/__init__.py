"""NVIDIA's cards and their MIG slices, by NVML."""

from __future__ import annotations

from lockkit.gpu.nvml.provider import NvmlProvider

__all__ = ["NvmlProvider"]
