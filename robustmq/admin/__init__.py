"""The administrative HTTP application: health and metrics."""
