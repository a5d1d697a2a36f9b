"""The transports, on real connected sockets."""
