"""The check values that the courses print for their own first layers (cs231n, assignment 2)."""

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.geometry import Window

CONV = [
    [
        [[-0.08759809, -0.10987781], [-0.18387192, -0.2109216]],
        [[0.21027089, 0.21661097], [0.22847626, 0.23004637]],
        [[0.50813986, 0.54309974], [0.64082444, 0.67101435]],
    ],
    [
        [[-0.98053589, -1.03143541], [-1.19128892, -1.24695841]],
        [[0.69108355, 0.66880383], [0.59480972, 0.56776003]],
        [[2.36270298, 2.36904306], [2.38090835, 2.38247847]],
    ],
]

MAXPOOL = [
    [
        [[-0.26315789, -0.24842105], [-0.20421053, -0.18947368]],
        [[-0.14526316, -0.13052632], [-0.08631579, -0.07157895]],
        [[-0.02736842, -0.01263158], [0.03157895, 0.04631579]],
    ],
    [
        [[0.09052632, 0.10526316], [0.14947368, 0.16421053]],
        [[0.20842105, 0.22315789], [0.26736842, 0.28210526]],
        [[0.32631579, 0.34105263], [0.38526316, 0.4]],
    ],
]


def test_conv(backend: Backend) -> None:
    x = np.linspace(-0.1, 0.5, 96).reshape(2, 3, 4, 4)
    w = np.linspace(-0.2, 0.3, 144).reshape(3, 3, 4, 4)
    b = np.linspace(-0.1, 0.2, 3)
    y = backend.conv_forward(x, w, b, Window.create(4, stride=2, padding=1))
    np.testing.assert_allclose(y, CONV, rtol=0, atol=5e-9)


def test_maxpool(backend: Backend) -> None:
    x = np.linspace(-0.3, 0.4, 96).reshape(2, 3, 4, 4)
    y, _ = backend.maxpool_forward(x, Window.create(2, stride=2))
    np.testing.assert_allclose(y, MAXPOOL, rtol=0, atol=5e-9)


def test_conv_is_image_processing(backend: Backend) -> None:
    """A delta kernel returns the image; Sobel's kernel answers only where rows differ."""
    image = np.zeros((1, 1, 6, 5))
    image[:, :, 3:] = 1
    kernels = np.zeros((2, 1, 3, 3))
    kernels[0, 0, 1, 1] = 1
    kernels[1, 0] = [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]
    y = backend.conv_forward(image, kernels, np.array([0.0, 128.0]), Window.create(3))
    np.testing.assert_array_equal(y[:, 0], image[:, 0, 1:-1, 1:-1])
    np.testing.assert_array_equal(y[0, 1].T, 3 * [[128, 124, 124, 128]])
