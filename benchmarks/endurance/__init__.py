"""Whether the promises hold while processes are killed, stopped and restarted: what they wrote down, and the verdict."""
