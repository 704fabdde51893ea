"""Label selectors: which objects a Service, a ReplicaSet or a policy means.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors; the command is
`kubectl get pods -l 'app=web,tier in (a,b)'`.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import field

from kubenet_lab.objects.meta import Part


class LabelSelectorRequirement(Part, frozen=True, kw_only=True):
    """One expression: `key`, an operator (`In`, `NotIn`, `Exists`, `DoesNotExist`) and its values."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet this expression. `NotIn` is met by an object without the label.

        Raises:
            ValueError: The operator is none of the four.
        """
        if self.operator == "In":
            return self.key in labels and labels[self.key] in self.values
        if self.operator == "NotIn":
            return self.key not in labels or labels[self.key] not in self.values
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        raise ValueError(f"{self.operator!r} is not a valid label selector operator")


class LabelSelector(Part, frozen=True, kw_only=True):
    """All of `match_labels` and all of `match_expressions`; an empty selector means every object."""

    match_labels: dict[str, str] = field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        return matches_map(self.match_labels, labels) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


def matches_map(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels hold every pair of a plain map, the form of a Service's `spec.selector` and of
    `nodeSelector`.

    An empty map matches everything here; that a Service without selector selects *nothing* is the caller's
    rule.
    """
    return all(labels.get(key) == value for key, value in selector.items())
