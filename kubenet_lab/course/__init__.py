"""The course: its launcher, exercises that the model judges, hints, and the learner's progress.

from kubenet_lab.course import exercise, progress
exercise("05-routes")        # a panel to answer in
progress()                   # how far you have come
"""

from kubenet_lab.course.desk import Overview, exercise, progress
from kubenet_lab.course.sheet import Choice, Exercise, Finding, NotSolved, Result, Sheet

__all__ = [
    "Choice",
    "Exercise",
    "Finding",
    "NotSolved",
    "Overview",
    "Result",
    "Sheet",
    "exercise",
    "progress",
]
