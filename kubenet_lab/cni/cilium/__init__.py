"""Cilium as the pod network: its CNI plugin, its agent on every node, identities, policies, tunnel and routes."""
