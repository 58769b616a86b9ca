"""The meta service: what all nodes agree on, decided and folded without I/O."""
