"""Pictures, tables and text of a network and of what happened in it: pure functions of values."""

from kubenet_lab.views.chains import chains_graph
from kubenet_lab.views.cluster_map import MapModel, cluster_html, cluster_picture, map_svg, model_of
from kubenet_lab.views.theme import Picture
from kubenet_lab.views.trip_picture import trip_html, trip_svg
from kubenet_lab.views.trip_steps import Story, story

__all__ = [
    "MapModel",
    "Picture",
    "Story",
    "chains_graph",
    "cluster_html",
    "cluster_picture",
    "map_svg",
    "model_of",
    "story",
    "trip_html",
    "trip_svg",
]
