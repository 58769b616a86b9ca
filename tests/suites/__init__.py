"""Public conformance suites, fetched and run against this server; what they find is traced."""
