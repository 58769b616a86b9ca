"""Sockets: accepting, reading, gathered writing, and handing a socket to another core."""
