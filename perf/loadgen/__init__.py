"""The load generator: C sources, compiled on first use by `perf.generator`."""
