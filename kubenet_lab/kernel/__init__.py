"""Kernel state: what every host and namespace of a world holds. Knows nothing of Kubernetes."""
