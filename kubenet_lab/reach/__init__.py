"""Who can reach whom in a whole world: matrix, differences, exposure, and what is odd about the policies."""

from kubenet_lab.reach.matrix import Reach, Span

__all__ = ["Reach", "Span"]
