"""What a run keeps of its beginning, in initial.safetensors: the first convolution's filters.

Written once, when the run is made, to be seen beside what they become; a fork takes over its origin's. A
network without a convolution has none, nor has a run from before this file was kept.
"""

from safetensors import SafetensorError
from safetensors.numpy import load as unpack_tensors
from safetensors.numpy import save as pack_tensors

from cnnctl.backends.specs import Array
from cnnctl.errors import RunError
from cnnctl.nn import Conv, Network
from cnnctl.train.atomic import reporting_os_errors
from cnnctl.train.run_directory import RunDirectory

FILE = "initial.safetensors"


def pack_initial_filters(network: Network) -> dict[str, bytes]:
    """The file by its name, holding conv1.weight (or as the layer is called); {} without a convolution."""
    first = find_first_conv(network)
    if first is None:
        return {}
    return {FILE: pack_tensors({f"{first.name}.weight": first.params["weight"]})}


def find_first_conv(network: Network) -> Conv | None:
    """The convolution whose filters are kept, if there is one."""
    return next((layer for layer in network.leaves if isinstance(layer, Conv)), None)


def read_initial_filters(run: RunDirectory, layer: str, shape: tuple[int, ...]) -> Array:
    """The filters of that layer as training began, of that shape.

    Raises RunError when the run keeps none, only another layer's, or damaged ones.
    """
    path = run.path / FILE
    if not path.exists():
        raise RunError(
            f"{path}: not there: a run from before filters were kept does not know how they began; "
            "leave out --before-after"
        )
    try:
        with reporting_os_errors(path):
            tensors = unpack_tensors(path.read_bytes())
    except SafetensorError as error:
        raise RunError(f"{path}: unreadable: {error}") from error
    key = f"{layer}.weight"
    if key not in tensors:
        kept = ", ".join(name.removesuffix(".weight") for name in tensors)
        raise RunError(f"{path}: keeps how {kept} began, not {layer}; leave out --before-after")
    if tensors[key].shape != shape:
        raise RunError(f"{path}: {key} is {tensors[key].shape} where the layer has {shape}")
    return tensors[key]
