"""The protocol of docs/wire.md without any input or output: no socket, no runtime, no clock."""
