"""BGP as BIRD speaks it on a Calico node: sessions, routes, filters, and what ends up in the kernel."""
