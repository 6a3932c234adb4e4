"""The JRPB algorithm of the MU-ASCC paper (Fig. 6), one instance at a time: rates, then powers and beams, in turn.

Algorithms 1 and 2 are in :mod:`subgradient` and :mod:`sca`; both and Algorithm 3 work on the relaxed problem, where a
rate may lie between two codecs (26). Where this departs from the paper:

* It leaves the start and every threshold open; see :class:`Settings`.
* Algorithm 1 begins at R^1 in every pass and may end in another local minimum than before; a user keeps its rate where
  the new one is no better. So no half of a pass raises the relaxed objective.
* A rate that only the arithmetic leaves below a codec is rounded to that codec (SNAP).
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from semcom_gym.baselines.ascc import heuristics, relaxed, sca, subgradient
from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.ascc import actions, duality, physics
from semcom_gym.envs.ascc.instance import Instance, Params
from semcom_gym.envs.ascc.physics import Allocation

STARTS = {"mrt": heuristics.mrt, "zf": heuristics.zf_equal, "mmse": heuristics.equal_mmse}
ROUNDINGS = ("down", "best")
SNAP = 1e-6  # in codecs


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of the method.

    start: powers and beams to begin with: "mrt" or "zf" (matched or zero-forcing beams, equal downlink powers) or
    "mmse" (equal dual powers). passes: of the outer loop at most; turns: of Algorithm 3; steps: of Algorithm 2.
    tolerance: relative fall of the objective at which any of these loops has converged [epsilon_1, epsilon_2].
    rounding: of the relaxed rates, "down" (Section IV-D), or to the "best" codec at the SINR reached, which is no part
    of the paper. progress: show a bar.
    """

    start: str = "mrt"
    rounding: str = "down"
    passes: int = 300
    turns: int = 50
    steps: int = 50
    tolerance: float = 1e-4
    progress: bool = False

    def __post_init__(self) -> None:
        validate.choice("start", self.start, STARTS)
        validate.choice("rounding", self.rounding, ROUNDINGS)
        for name in ("passes", "turns", "steps"):
            validate.integer(name, getattr(self, name))
        validate.number("tolerance", self.tolerance)


def solve(params: Params, instance: Instance, **options: Any) -> Solution:
    """The JRPB algorithm; options are the fields of :class:`Settings`.

    iterations: passes of the outer loop. trace: the relaxed objective after the rates and after the powers and beams
    of every pass; the objective of the discrete rates, reached after the last of them, may be above it. status: how
    often the first convex solver failed and another stepped in is said behind "ok".
    """
    from tqdm import tqdm  # of the extra 'solvers', as cvxpy

    validate.keywords("jrpb", options, [field.name for field in dataclasses.fields(Settings)])
    settings = Settings(**options)
    started = time.perf_counter()
    first = STARTS[settings.start](params, instance).allocation
    sca.program(params.num_users)  # imports cvxpy, which is no instance's work
    runs, seconds = [], []
    for row in tqdm(range(len(instance)), disable=not settings.progress, unit="instance"):
        begun = time.perf_counter()
        runs.append(_Run(params, instance[row], first[row], settings))
        seconds.append(time.perf_counter() - begun)
    power, beam, _ = actions.realise(instance, np.stack([run.dual for run in runs]))  # (34)
    trace = np.full((len(runs), max(len(run.trace) for run in runs)), np.nan)
    for row, run in enumerate(runs):
        trace[row, : len(run.trace)] = run.trace
    return package(
        "ascc",
        params,
        instance,
        Allocation(power, beam.real, beam.imag, np.stack([run.index for run in runs])),
        started,
        seconds=np.array(seconds),
        iterations=np.array([len(run.trace) // 2 for run in runs]),
        trace=trace,
        status=[run.status for run in runs],
    )


class _Run:
    """One instance: its rate indices and dual powers (K,), in the end the solution's, and what led there."""

    def __init__(self, params: Params, instance: Instance, first: Allocation, settings: Settings) -> None:
        self.params, self.settings = params, settings
        self.gram = duality.gram(instance)
        self.trace: list[float] = []
        self.effort = sca.Effort()
        channel = duality.vectors(instance.channel_re, instance.channel_im)
        beam = duality.vectors(first.beam_re, first.beam_im)
        sinr = physics.sinr(instance, first.power_w, beam)
        self.dual = np.maximum(duality.dual_power(physics.coupling(channel, beam), sinr)[0], 0.0)  # (35)
        self.index = subgradient.descend(params, sinr[0])
        self.status = self._alternate()
        self.index = self._rounded()
        self._resources()
        self.status += self.effort.summary()

    def _alternate(self) -> str:
        """Fig. 6 for the relaxed problem; a status."""
        before = np.inf
        for _ in range(self.settings.passes):
            if self.trace:
                self._rates()
            self.trace.append(relaxed.codecs(self.params, self.index).objective(self._uplink()[0]))
            self.trace.append(self._resources())
            if before - self.trace[-1] <= self.settings.tolerance * self.trace[-1]:
                return "ok"
            before = self.trace[-1]
        return f"not converged in {self.settings.passes} passes"

    def _rates(self) -> None:
        """Algorithm 1, and the better of its rate and the last one for every user."""
        sinr, _ = self._uplink()
        new = subgradient.descend(self.params, sinr)
        old_harm, new_harm = (physics.distortion(self.params, sinr, x[None])[0] for x in (self.index, new))
        self.index = np.where(new_harm < old_harm, new, self.index)

    def _rounded(self) -> Array:
        """Section IV-D."""
        if self.settings.rounding == "down":
            return np.floor(self.index + SNAP)
        return np.asarray(physics.best_index(self.params, self._uplink()[0][None])[0])

    def _resources(self) -> float:
        """Algorithm 3 at the rates: receivers (43) and dual powers in turn; the objective reached."""
        settings, users = self.settings, relaxed.codecs(self.params, self.index)
        sinr, coupling = self._uplink()
        value = users.objective(sinr)
        for _ in range(settings.turns):
            before = value
            self.dual = sca.optimise(
                users,
                coupling,
                self.dual,
                self.params.max_power_w,
                tolerance=settings.tolerance,
                most=settings.steps,
                effort=self.effort,
            )
            sinr, coupling = self._uplink()
            value = users.objective(sinr)
            if before - value <= settings.tolerance * before:
                break
        return value

    def _uplink(self) -> tuple[Array, Array]:
        """SINRs (K,) with the receivers (43) at the dual powers, and their |h_k^H w_l|**2 (K, K)."""
        found = duality.uplink(self.gram, self.dual[None])
        return found.sinr[0], duality.couplings(found)[0]
