"""The course: its launcher, and what judges its exercises."""
