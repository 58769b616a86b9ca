"""Tests: unit, property, architecture, integration, chaos, perf."""
