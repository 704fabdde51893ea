"""bridge: a Linux bridge on the host and a veth pair for each container."""
