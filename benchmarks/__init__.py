"""How fast the bus is, beside bare sockets on the same machine in the same minute. Linux only.

``python -m benchmarks throughput|latency|fds|runtimes|cli`` starts a broker and programs, each a process of its own,
lets them and their references take turns for some rounds, and prints a table: medians, the ratio to the
reference (median, lowest and highest of the rounds' own ratios), the floor that the project promises and
whether it was met, and the processor time that each program spent on a message. None of these is a test: a
missed floor is printed, and the exit code stays 0.

- throughput: 64-byte messages from one ``await bus.publish`` to one ``async for``. Reference: a blocking
  socket pair of the same kind between two processes, one ``send`` and one ``recv`` for each message.
- latency: one ``await bus.request`` after the other. Reference: two Trio programs with raw sockets and a Trio
  process that relays between them.
- fds: messages that carry one file descriptor each. Reference: one ``sendmsg`` and one ``recvmsg`` for each.
- runtimes: throughput and latency of asyncio and of blocking programs. Reference: the same programs in Trio.
- cli: ``sockbus pub`` from its start to its end. Reference: a Trio program that publishes the same.

The first three measure Trio programs, and with ``--runtimes`` others too: asyncio's are the same text, blocking
ones publish in a ``with bus.batch()`` and iterate with ``for``; uvloop, where it is installed, is asyncio's bus in
uvloop's event loop. Their floors are Trio's.

``python -m benchmarks endurance`` measures nothing: publishers, subscribers, servers and the broker are killed, stopped
and restarted at random, and what they have written down is judged. Its exit code is 1 when a promise was broken, with
the first evidence in one line; ``--seed`` repeats what is done to them, though not when exactly it meets them.

``throughput``, ``latency`` and ``fds`` hold a benchmark and its programs, ``runtimes`` compares some of those, ``cli``
runs commands, ``references`` holds the bare ones; ``rounds`` takes turns and compares, ``process`` starts and ends
processes, ``programs`` is the other end of that, ``report`` prints; ``endurance`` is a package of its own.
"""
