"""Every optimizer goes where PyTorch's goes, 100 steps long: by its figures, and by itself where installed.

Its `weight_decay` is ours, whether coupled or not. Lion, which it has not, stands in test_lion.
"""

import numpy as np
import pytest

from cnnctl.optim import SGD, AdaGrad, Adam, Adamax, AdamW, RMSprop

STEPS = 100
CURVATURE, CENTRE = np.array([0.5, 1.0, 2.0, 4.0]), np.array([2.0, 1.0, -1.0, 0.0])
START = np.array([1.0, -2.0, 0.5, 3.0])
WAVES = np.array([1.0, 2.0, 3.0, 5.0])

# Ours, PyTorch's class and settings, and where that ends: PyTorch 2.13, float64.
ADAM = {"betas": (0.8, 0.99), "eps": 1e-3}
FIGURES = {
    "sgd": (
        *(SGD(0.01), "SGD", {"lr": 0.01}),
        [1.3957017877853337, -0.09666109616007672, -0.7995722642355942, 0.05315908416282117],
    ),
    "sgd-momentum": (
        *(SGD(0.01, 0.9), "SGD", {"lr": 0.01, "momentum": 0.9}),
        [2.0056351432692625, 1.0087969148240163, -0.9928740094532811, 0.011868332183956871],
    ),
    "sgd-dampening": (
        SGD(0.01, 0.9, dampening=0.5, weight_decay=0.1),
        *("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
        [1.6605199098400334, 0.9075692577477038, -0.9581866769910578, 0.009112807145344824],
    ),
    "sgd-nesterov": (
        SGD(0.01, 0.9, nesterov=True, weight_decay=0.1),
        *("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        [1.6706292193086658, 0.9186044175886002, -0.948221637769418, 0.005549551751499608],
    ),
    "adagrad": (
        *(AdaGrad(0.1), "Adagrad", {"lr": 0.1}),
        [1.957612758867773, -0.39183568893810855, -0.7769438717780741, 1.3926251176016167],
    ),
    "adagrad-decay": (
        AdaGrad(0.1, eps=1e-3, weight_decay=0.1),
        *("Adagrad", {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.1}),
        [1.672227666961437, -0.4011800071597813, -0.7552562945403126, 1.3927111351409627],
    ),
    "rmsprop": (
        *(RMSprop(0.01), "RMSprop", {"lr": 0.01}),
        [1.9786607739162736, -0.26021720405107124, -0.8419288746758595, 1.2605826443653743],
    ),
    "rmsprop-momentum": (
        RMSprop(0.01, 0.9, 1e-3, 0.9, weight_decay=0.1),
        *("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9}),
        [1.6795564772670268, 0.9078304333160283, -0.9529208352093811, 0.0004499146309102973],
    ),
    "rmsprop-centered": (
        *(RMSprop(0.01, centered=True), "RMSprop", {"lr": 0.01, "centered": True}),
        [1.9867451169271233, -0.006206324543335232, -0.9029660071672804, 1.0029180342414843],
    ),
    "rmsprop-all": (
        RMSprop(0.01, 0.9, 1e-3, 0.9, centered=True, weight_decay=0.1),
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9, "centered": True},
        [1.6816220748740285, 0.9175927893733107, -0.954954384864223, 0.013818965118525402],
    ),
    "adam": (
        *(Adam(0.02), "Adam", {"lr": 0.02}),
        [1.9851659751160127, -0.27875615312841817, -0.8603777911817458, 1.2748874779315407],
    ),
    "adam-decay": (
        *(Adam(0.02, 0.8, 0.99, 1e-3, 0.1), "Adam", {"lr": 0.02, "weight_decay": 0.1, **ADAM}),
        [1.6668875909394727, -0.3082231456312438, -0.8051771404476443, 1.2938758935646415],
    ),
    "adamw": (
        *(AdamW(0.02), "AdamW", {"lr": 0.02}),
        [1.972289767023318, -0.2617472493469496, -0.8558614613360076, 1.241707336957058],
    ),
    "adamw-decay": (
        *(AdamW(0.02, 0.8, 0.99, 1e-3, 0.3), "AdamW", {"lr": 0.02, "weight_decay": 0.3, **ADAM}),
        [1.604115775919061, 0.05962882255611098, -0.7228945933813173, 0.5918071568183443],
    ),
    "adamax": (
        *(Adamax(0.02), "Adamax", {"lr": 0.02}),
        [1.7987064231924599, -0.49835899482871915, -0.6918054720533652, 1.4295550349930706],
    ),
    "adamax-decay": (
        *(Adamax(0.02, 0.8, 0.99, 1e-3, 0.1), "Adamax", {"lr": 0.02, "weight_decay": 0.1, **ADAM}),
        [1.6476839108104948, -0.17073959197173003, -0.8323415419921449, 1.0255858853632789],
    ),
}
over_figures = pytest.mark.parametrize(
    ("optimizer", "theirs", "settings", "recorded"), FIGURES.values(), ids=FIGURES
)


def follow(backend, optimizer, start, compute_gradient):
    """Where the weights end."""
    w = start.copy()
    slots = {slot: np.zeros_like(w) for slot in optimizer.slots}
    for step in range(1, STEPS + 1):
        optimizer.update(backend, w, compute_gradient(w, step), slots, step, l2=0.0)
    return w


def slide(w, step):
    """The gradient of a bowl, and a wave in the place of noise."""
    return (CURVATURE * (w - CENTRE) + 0.3 * np.sin(WAVES * step)).astype(w.dtype)


@over_figures
def test_ends_where_pytorch_was_recorded_to_end(backend, optimizer, theirs, settings, recorded):
    np.testing.assert_allclose(follow(backend, optimizer, START, slide), recorded, rtol=0, atol=1e-10)


@over_figures
def test_float32_ends_near_it(backend, optimizer, theirs, settings, recorded):
    w = follow(backend, optimizer, START.astype(np.float32), slide)
    assert w.dtype == np.float32
    np.testing.assert_allclose(w, recorded, rtol=0, atol=2e-5)


@over_figures
def test_goes_beside_pytorch(backend, optimizer, theirs, settings, recorded):
    """On forty other weights, with noise."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    curvature, centre, start = rng.uniform(0.2, 3, 40), rng.normal(size=40), rng.normal(size=40)
    noise = rng.normal(size=(STEPS + 1, 40))

    def compute_gradient(w, step):
        return curvature * (w - centre) + noise[step]

    parameter = torch.nn.Parameter(torch.tensor(start))
    stepper = getattr(torch.optim, theirs)([parameter], **settings)
    for step in range(1, STEPS + 1):
        parameter.grad = torch.from_numpy(compute_gradient(parameter.detach().numpy(), step))
        stepper.step()
    ours = follow(backend, optimizer, start, compute_gradient)
    np.testing.assert_allclose(ours, parameter.detach().numpy(), rtol=0, atol=1e-10)
    assert np.abs(ours - start).min() > 1e-4
