"""The promises about kernels, proven at length: `python -m tests.torture`, or `make torture`.

A slice of every row runs with the ordinary tests (test_slice.py).
"""
