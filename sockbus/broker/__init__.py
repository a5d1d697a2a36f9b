"""The broker: who may come in, what becomes of a message, and when to say no."""
