"""Messages: the record batch, the one unit that is stored and moved, and topics."""
