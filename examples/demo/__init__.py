"""The main job of sockbus on real files: ``make demo``, or ``python -m examples.demo [FILE ...]``.

A publisher process opens the files (the source of sockbus itself, unless others are named) and publishes a job for
each: a number, and the open file. Worker processes on SEQPACKET and on STREAM share the jobs as one group, read
through the descriptors that they were given, and publish what they counted. The process that was started is a TCP
peer: it collects the results, asks the publisher for the totals, reads the files itself and compares.

The exit code is 0 when all matches, 1 when anything does not or a process ends before its time or the time limit
passes, 130 after Ctrl-C. To see it fail, change one of the files while it runs, or kill one of the processes that it
names; ``tests/examples/test_demo.py`` does both.

``stage`` is the course of the demonstration, ``crew`` its processes, ``publisher`` and ``worker`` what two of them
run, ``counts`` what is counted in a file, ``verdict`` the comparison.
"""
