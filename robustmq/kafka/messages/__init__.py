"""The messages of the protocol as values, one module for each area."""
