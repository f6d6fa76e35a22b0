"""Checking: gradients against differences. Prints nothing."""
