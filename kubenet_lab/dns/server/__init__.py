"""CoreDNS as a chain of plugins over a view of the cluster's objects."""
