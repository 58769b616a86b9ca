"""One core of the broker, without I/O: the port, routing, dispatch and retained messages."""
