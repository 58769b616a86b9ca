"""The processes: the only place where concrete pieces are put together."""
