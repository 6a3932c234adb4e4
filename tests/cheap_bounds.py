"""A small task of CRRA with a bound that costs nothing."""

import numpy as np
import pytest

from semcom_gym.baselines import crra
from semcom_gym.baselines.solution import Bound
from semcom_gym.benchmarks import certificates, protocol, store

MARGIN = 0.01


def loose_bound(params, instance):
    """A stand-in that costs nothing: the fast solver's objective and a little more."""
    best = crra.fast.solve(params, instance)
    value = best.objective + MARGIN
    return Bound(value, MARGIN / value, best, np.zeros(len(value)))


@pytest.fixture
def loose(monkeypatch, tmp_path):
    monkeypatch.setattr(crra, "prove", loose_bound, raising=False)
    monkeypatch.setattr(certificates, "FOLDER", tmp_path / "bounds")
    (tmp_path / "bounds").mkdir()


@pytest.fixture
def cells(tmp_path):
    return store.Store(tmp_path / "cells")


@pytest.fixture
def task():
    return protocol.task("SemCom/CRRA-v0", n=6)
