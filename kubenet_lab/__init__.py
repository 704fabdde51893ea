"""Kubernetes networking that you can run, break and see inside."""
