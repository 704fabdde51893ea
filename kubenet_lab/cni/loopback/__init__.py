"""loopback: sets a container's `lo` up."""
