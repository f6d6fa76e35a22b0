"""Config: a closed schema, a strict YAML dialect, inheritance and overrides.

A config becomes a `RunConfig` here or is refused in one line that says where. Builds no
network, opens no data and knows no backend: those who do take the `RunConfig`.
"""

from cnnctl.config.data import DataConfig
from cnnctl.config.load import (
    compare_configs,
    config_from_dict,
    config_from_text,
    config_to_dict,
    dump_config,
    load_config,
)
from cnnctl.config.network import NetworkConfig
from cnnctl.config.schema import EngineConfig, RunConfig
from cnnctl.config.solver import SolverConfig

__all__ = [
    "DataConfig",
    "EngineConfig",
    "NetworkConfig",
    "RunConfig",
    "SolverConfig",
    "compare_configs",
    "config_from_dict",
    "config_from_text",
    "config_to_dict",
    "dump_config",
    "load_config",
]
