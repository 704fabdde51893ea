"""Names: what a pod's resolver asks, and what CoreDNS answers."""
