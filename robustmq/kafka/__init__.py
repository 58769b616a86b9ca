"""The Kafka protocol: wire, handlers and coordinators, without I/O."""
