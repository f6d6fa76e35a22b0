"""Checking: gradients against differences, operations against the textbook's loops. Prints nothing."""
