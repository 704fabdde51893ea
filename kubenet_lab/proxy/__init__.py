"""kube-proxy: from Services and EndpointSlices to rules in the kernel. See README.md."""
