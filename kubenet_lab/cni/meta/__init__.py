"""Plugins that change what another one made (chained ones), as in `containernetworking/plugins/plugins/meta`."""
