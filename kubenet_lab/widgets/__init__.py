"""The pictures of `kubenet_lab.views`, alive in a notebook: the only place that imports ipywidgets or anywidget.

The kernel sends each picture once; the browser animates it. Only the step, the selection and the choices of the
reader travel between the two.
"""

from kubenet_lab.widgets.cluster_map import ClusterMap
from kubenet_lab.widgets.rules_explorer import RuleTree
from kubenet_lab.widgets.state_diff import StateDiff
from kubenet_lab.widgets.trip_stepper import TripStepper

__all__ = ["ClusterMap", "RuleTree", "StateDiff", "TripStepper"]
