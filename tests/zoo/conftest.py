"""The peer is left alone where PyTorch, an extra, is not installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["peer.py"]
