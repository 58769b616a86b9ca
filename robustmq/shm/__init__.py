"""Shared memory: rings between cores, doorbells, states and counters."""
