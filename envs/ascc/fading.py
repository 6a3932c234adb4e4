"""The channel of the MU-ASCC problem over time: every entry of the channel matrix is a Gauss-Markov process."""

from __future__ import annotations

import numpy as np

from semcom_gym.envs import channel
from semcom_gym.envs.arrays import Array, at_least
from semcom_gym.envs.ascc.instance import Instance, Params
from semcom_gym.envs.fading import LEAST_FADE, Episode, Fading, gauss_markov, jakes

LEAST_CORRELATION = 1e-4  # of powers: beams and powers need a channel, whatever it is worth


class Antennas:
    """h_(t+1) = r h_t + sqrt(1 - r^2) w_t, r Jakes's correlation of the user, w_t of the law of a random channel.

    The paper has no cell: users keep the mean power that their first channel has, so that speed moves the fading only.
    The antennas' fading is what ``Fading.diversity`` stands for elsewhere, and ``decorrelation_m``, ``turn_m`` have no
    part here.
    """

    fields = ("channel_re", "channel_im")

    def check(self, params: Params, fading: Fading) -> None:
        """Any fading fits."""

    def uniforms(self, params: Params, fading: Fading) -> int:
        """How many uniform variates one episode takes after those of its start."""
        return params.num_users + fading.states * sum(self._counts(params))

    def _counts(self, params: Params) -> tuple[int, int]:
        """For each state: innovations of the users and of what they have in common, and estimation errors."""
        return 2 * (params.num_users + 1) * params.num_antennas, 2 * params.num_users * params.num_antennas

    def episode(self, params: Params, fading: Fading, start: Instance, uniform: Array) -> Episode:
        """Episodes from their starts (n rows, NumPy) and uniform variates (n, ``uniforms``)."""
        n, users, antennas = start.channel_re.shape
        low, high = fading.speed_range_m_s
        r = jakes(fading, low + (high - low) * uniform[:, :users])
        normal = channel.normal(uniform[:, users:]).reshape(n, fading.states, -1)
        fresh, error = np.split(normal, [self._counts(params)[0]], axis=-1)
        first = np.concatenate([start.channel_re, start.channel_im], axis=-1)  # (n, K, 2 N_t)
        power = np.mean(first * first, axis=-1)[:, None, :, None]  # of a real or an imaginary part
        fresh = fresh.reshape(n, fading.states, users + 1, 2 * antennas)
        common = params.channel_correlation
        mixed = np.sqrt(1.0 - common) * fresh[:, :, 1:] + np.sqrt(common) * fresh[:, :, :1]
        true = gauss_markov(first, r[..., None], np.sqrt(power) * mixed)
        good, bad = np.sqrt(1.0 - fading.error_share), np.sqrt(fading.error_share)
        seen = good * true + bad * np.sqrt(power) * error.reshape(true.shape)
        age, last = fading.delay_blocks, fading.horizon + 1
        fade = np.maximum(np.mean(seen * seen, axis=-1) / power[..., 0], LEAST_FADE)
        return Episode(
            start=start,
            truth=_parts(true[:, age:]),
            belief=_parts(seen[:, :last]),
            fade=fade[:, :last],
            correlation=(1.0 - fading.error_share) * r ** (2 * age),
        )

    def predicted(self, instance: Instance, fade: Array, correlation: Array) -> Instance:
        """The instance at the mean of its channel, given what is seen, up to a sign, which no rate depends on.

        Where what is seen says nothing that mean is no channel at all: then a trace of what is seen.
        """
        share = at_least(correlation, LEAST_CORRELATION)[..., None] ** 0.5
        return instance.map(lambda h: h * share)

    def scaled(self, instance: Instance, factor: float) -> Instance:
        """The instance with all channel powers times ``factor``."""
        return instance.map(lambda h: h * factor**0.5)


def _parts(h: Array) -> dict[str, Array]:
    real, imaginary = np.split(h, 2, axis=-1)
    return {"channel_re": real, "channel_im": imaginary}
