"""All scenarios, by name."""

from __future__ import annotations

from tests.processes import beside_threads, ending, handling, looping, passing, using
from tests.processes.scenario import SCENARIOS, Place

__all__ = ["SCENARIOS", "Place", "beside_threads", "ending", "handling", "looping", "passing", "using"]
