"""IPAM plugins: they choose a container's addresses and touch no link."""
