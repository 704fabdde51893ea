"""Flannel: a daemon a node that routes to the others' pod subnets, and a plugin that runs bridge."""
