"""Our own side of a comparison: batches and a plan, as a training run has them."""

from dataclasses import dataclass

from cnnctl.backends.base import Backend
from cnnctl.bench.workload import Workload
from cnnctl.nn.plan import Plan
from cnnctl.train.build import build_backend, build_plan


@dataclass(frozen=True, slots=True)
class Engine:
    """A backend, set as the config has it."""

    backend: str

    @property
    def name(self) -> str:
        return f"cnnctl {self.backend}"

    @property
    def layout(self) -> str:
        return "NHWC" if self.backend == "fast" else "NCHW"

    @property
    def source(self) -> str:
        """What batches are made of: always the pixels as they are."""
        return "pixels"

    @property
    def compiled(self) -> bool:
        """Nothing of it is compiled as it runs."""
        return False

    @property
    def frugal(self) -> "Engine":
        """Itself: it has no way to trade memory for time."""
        return self

    def create_backend(self, workload: Workload) -> Backend:
        """The backend, on the workload's threads."""
        engine = workload.config.engine
        isa = engine.isa if self.backend == "fast" else None
        return build_backend(engine.model_copy(update={"backend": self.backend, "isa": isa}))

    def create_side(self, workload: Workload, *, evaluate: bool, dropout: bool = True) -> "EngineSide":
        """Made ready to run."""
        return EngineSide(self.create_backend(workload), workload, evaluate, dropout)


class EngineSide:
    """Training steps, or evaluation, of a workload on one backend."""

    def __init__(self, backend: Backend, workload: Workload, evaluate: bool, dropout: bool) -> None:
        solver = workload.config.solver
        self._workload, self._batches = workload, workload.create_batches()
        network = workload.create_network(dropout=dropout)
        if evaluate:
            self._plan = Plan(network, workload.batch_size, backend)
        else:
            self._plan = build_plan(solver, network, workload.batch_size, backend)
        self._run = self._plan.evaluate if evaluate else self._plan.step

    def step(self, number: int) -> float:
        """Batch `number`, gathered, normalised and run; its loss, penalty included."""
        batch = self._batches.draw(*self._workload.locate(number))
        return self._run(batch, batch.labels).loss

    read_loss = step
