"""Learned transceivers: networks, channels, training and measurement of the curves that the environments read.

No network is part of this version; the curves in use are the papers' published ones (``semcom_gym.envs.curve``).
"""
