"""For tests of programs that use the bus: ``with Broker() as broker``, and a pytest plugin.

pytest imports this package whenever it starts, in every project of an environment, because the plugin is inside. So
nothing is imported here until it is used: Trio and the broker come with the first ``Broker``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .broker import Broker
else:

    def __getattr__(name: str) -> object:
        if name == "Broker":
            from .broker import Broker

            return Broker
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Broker"]
