"""One module for each way of launching, and the table that says which accelerator uses which."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Backend
from .cpu import Cpu

BACKENDS: Mapping[str, Backend] = {"cpu": Cpu()}
