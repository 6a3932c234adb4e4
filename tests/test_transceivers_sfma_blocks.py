"""Blocks of SC-SFMA: attention in windows, changes of resolution, and the fusion of two users' features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from semcom_gym.transceivers.sfma import scfm, swin

torch.set_num_threads(1)


def stirred(module: nn.Module) -> nn.Module:
    """With random weights everywhere, so that nothing is silent."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in module.parameters():
            value += 0.3 * torch.randn(value.shape, generator=generator)
    return module


# --- Swin ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 8), (4, 4), (2, 2)])
def test_attention_is_that_of_every_token_with_its_neighbours(height: int, width: int, shifted: bool) -> None:
    """Token by token in plain NumPy; no windows are cut, no map is rolled."""
    window, heads, size = 4, 2, 3
    layer = stirred(swin.WindowAttention(heads * size, heads, window))
    generator = torch.Generator().manual_seed(2)
    features, source = torch.randn(2, 1, height, width, heads * size, generator=generator)
    found = layer(features, source, shifted)[0].detach().numpy()

    side = min(window, height, width)
    start = side // 2 if shifted and min(height, width) > side else 0
    group = [[(place - start) // side for place in range(length)] for length in (height, width)]
    query = layer.query(features)[0].detach().numpy()
    both = layer.key_value(source).detach().reshape(height, width, heads, 2, size).numpy()  # head by head
    bias = layer.bias.detach().numpy()
    places = [(r, c) for r in range(height) for c in range(width)]
    mixed = np.zeros_like(query)
    for r, c in places:
        near = [(y, x) for y, x in places if group[0][y] == group[0][r] and group[1][x] == group[1][c]]
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            step = [bias[head, r - y + window - 1, c - x + window - 1] for y, x in near]
            keys, values = (np.array([both[y, x, head, k] for y, x in near]) for k in (0, 1))
            scores = keys @ query[r, c, part] / math.sqrt(size) + step
            weights = np.exp(scores - scores.max())
            mixed[r, c, part] = weights / weights.sum() @ values
    expected = layer.output(torch.from_numpy(mixed)).detach().numpy()
    assert found == pytest.approx(expected, abs=1e-5)


def test_merging_starts_as_a_transform_that_expansion_undoes() -> None:
    assert torch.allclose(swin.haar(3) @ swin.haar(3).mT, torch.eye(12), atol=1e-6)
    features = torch.randn(2, 4, 6, 3, generator=torch.Generator().manual_seed(0))
    merged = swin.Merging(3, 14)(features)
    assert merged.shape == (2, 2, 3, 14)
    assert torch.allclose(merged[0, 1, 2, :3], features[0, 2:4, 4:6].sum((0, 1)) / 2, atol=1e-6)  # low-pass first
    assert torch.allclose(swin.Expansion(14, 3)(merged), features, atol=1e-6)
    flat = torch.ones(1, 2, 2, 5)
    assert torch.allclose(swin.Expansion(7, 5)(swin.Merging(5, 7)(flat)), flat, atol=1e-6)


# --- SCFM ------------------------------------------------------------------------------------------------------------
def test_the_gate_goes_from_own_features_to_cross_attention() -> None:
    """(8) at its two ends, and half way."""
    module = stirred(scfm.SCFM(6, 2, 2))
    features = torch.randn(3, 2, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    cross = module.cross(features)
    assert float((cross - features).detach().abs().min()) > 0
    with torch.no_grad():
        module.modulator[-1].weight.zero_()
        for bias, expected in ((-200.0, features), (200.0, cross), (0.0, (features + cross) / 2)):
            module.modulator[-1].bias.fill_(bias)
            assert torch.allclose(module(features), expected, atol=1e-5)


def test_descriptors_of_a_pair() -> None:
    a, b = [[1.0, 2.0], [3.0, -1.0]], [[0.5, -2.0], [1.0, 4.0]]  # two tokens of two channels
    alpha, difference = scfm.descriptors(torch.tensor([a, b])[None, :, None])
    dot = 1 * 0.5 + 2 * -2 + 3 * 1 + -1 * 4
    norms = math.sqrt(1 + 4 + 9 + 1) * math.sqrt(0.25 + 4 + 1 + 16)
    assert alpha.tolist() == pytest.approx([dot / norms])
    assert difference.tolist()[0] == pytest.approx([(0.5 + 2.0) / 2, (4.0 + 5.0) / 2])


def test_users_are_treated_alike_and_each_takes_from_the_other() -> None:
    module = stirred(scfm.SCFM(6, 2, 2))
    features = torch.randn(3, 2, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(module(features.flip(1)), module(features).flip(1), atol=1e-5)
    other = features.clone()
    other[:, 1, 0, 0] = features[:, 0, 3, 3]  # one token of the partner: its windows change, and the gate
    changed = (module.cross(other) - module.cross(features))[:, 0].detach().abs().sum(-1)
    assert bool((changed[:, :2, :2] > 1e-4).all())
    assert float(changed[:, 3, 3].max()) < 1e-5  # four windows of 2 and a shift by 1 do not reach that far
    assert not torch.allclose(module.gate(other), module.gate(features))
