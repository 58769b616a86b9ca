"""Measurements of robustmq beside its peers, from outside: processes, sockets and /proc only."""
