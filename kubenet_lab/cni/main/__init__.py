"""Plugins that make an interface, one file each, as in `containernetworking/plugins/plugins/main`."""
