"""Log engines behind one interface: append, read, truncate, trim, sync."""
