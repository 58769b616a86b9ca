"""Shards: one ordered log each, owned by one core."""
