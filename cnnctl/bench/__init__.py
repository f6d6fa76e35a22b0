"""Measuring: the machine's limits, a network's operations, whole steps beside a peer. Prints nothing."""
