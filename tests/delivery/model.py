"""What a subscription is promised, as simply as it can be said: a queue, what came into it, and what it lost."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Expected", "Key"]

#: publisher and number
Key = tuple[str, int]


class Entry(NamedTuple):
    """A message that waits to be taken. ``at``: how many came before it."""

    key: Key
    topic: str
    at: int


class Expected:
    """One subscription between two interruptions, whatever is at the broker, on its way or in its program."""

    def __init__(self, overflow: str, capacity: int) -> None:
        self.overflow = overflow
        self.capacity = capacity
        self.queue: list[Entry] = []
        self.lost = 0
        #: ended by its policy: what is in the queue may still be taken
        self.is_over = False
        #: the next message says so
        self.is_cut = False
        #: all that were published since the connection was made
        self.published: set[Key] = set()
        self._arrived = self._next = 0
        # Whether it is known how many were lost since the last message; else there was an interruption.
        self._is_known = True

    def push(self, key: Key, topic: str) -> None:
        """A message was published that matches."""
        entry = Entry(key, topic, self._arrived)
        self._arrived += 1
        self.published.add(key)
        if self.is_over:
            return
        is_full = len(self.queue) >= self.capacity
        match self.overflow:
            case "disconnect" if is_full:
                self.is_over = True
                return
            case "drop_newest" if is_full:
                self.lost += 1
                return
            case "latest" if same := [held for held in self.queue if held.topic == topic]:
                self._drop(same[0])
            case "latest" | "drop_oldest" if is_full:
                self._drop(self.queue[0])
        self.queue.append(entry)

    def _drop(self, entry: Entry) -> None:
        self.queue.remove(entry)
        self.lost += 1

    def take(self) -> tuple[Key, int | None, bool]:
        """The next message: which one, how many were lost before it (None: nobody knows), and whether interrupted."""
        entry = self.queue.pop(0)
        lost = entry.at - self._next if self._is_known else None
        is_cut, self.is_cut = self.is_cut, False
        self._is_known = True
        self._next = entry.at + 1
        return entry.key, lost, is_cut

    def cut(self, lost: int, *, is_told: bool) -> None:
        """Another connection, and everything that came before it was taken. ``is_told``: and so was that."""
        self.queue.clear()
        self.published.clear()
        self.lost = lost
        # What would have ended it was lost with the connection.
        self.is_over = False
        self.is_cut = not is_told
        self._is_known = False
        self._next = self._arrived

    @property
    def has_room(self) -> bool:
        """Whether a publisher that waits until everybody has its message does not wait for this one."""
        return self.overflow != "block" or len(self.queue) < self.capacity // 2
