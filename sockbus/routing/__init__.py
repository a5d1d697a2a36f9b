"""Who gets what: from patterns to the sinks of a topic.

Pure: no frames, no sockets, no clock. A sink here is any hashable value; what is done with it is not known.
"""
