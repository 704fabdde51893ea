"""A packet through kernel state."""
