"""Flannel: a daemon a node that routes to the other nodes' pod subnets, and a plugin that delegates to bridge."""
