"""Raft, without I/O: one replica of one group, its log and its messages."""
