"""Non-blocking system calls on sockets. Nothing here waits: a caller is told what to wait for."""
