"""What a client does between two waits, written once for every runtime.

Whatever may have to wait is a generator of *steps*: it yields what it needs waited for and goes on when that has come
(``need``). ``client`` holds what all calls of one connection share, ``connecting``, ``taking`` and ``answering`` are
the three nouns besides; a runtime drives the steps, waits for the socket, and adds the way in which its users write.
"""
