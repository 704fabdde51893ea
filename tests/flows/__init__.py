"""The table of flows, and the worlds they run in."""
