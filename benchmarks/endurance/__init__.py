"""Whether the promises hold while processes are killed, stopped and restarted: a verdict, no figures.

``trial`` runs the programs ``publisher``, ``subscriber`` and ``server`` at one broker; they write down what they sent
and saw (``record``). ``history`` puts that together, ``checker`` and ``counting`` judge it, knowing nothing of sockbus.
``endure`` is the benchmark: trials until the time is over, with something random done to them all the time.
"""
