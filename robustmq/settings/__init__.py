"""What can be configured: immutable structs whose docstrings are the manual."""
