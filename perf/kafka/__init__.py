"""Throughput and latency of Kafka's Produce and Fetch, beside raw sockets and raw files."""
