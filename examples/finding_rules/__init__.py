"""What a made-up finding may say and which severity that means: one table a category, no code that draws or writes."""

from __future__ import annotations

from .activity import ACTIVITY
from .behavior import BEHAVIOR
from .host import HOST
from .indicators import INDICATORS
from .kinds import MIX, SCORES, Choice, Kind, Spec
from .settings import SETTINGS

KINDS: tuple[Kind, ...] = (*ACTIVITY, *INDICATORS, *BEHAVIOR, *HOST, *SETTINGS)

__all__ = ["KINDS", "MIX", "SCORES", "Choice", "Kind", "Spec"]
