"""Calico: BIRD spreads blocks of addresses, Felix programs routes, rules and sets, the CNI plugin wires a pod."""
