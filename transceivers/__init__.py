"""Learned transceivers: images, channels, networks, training, and measurement of the curves that environments read.

Deep JSCC of images is here (``deepjscc``). The curves that the environments use by default are the papers' own
(``semcom_gym.envs.curve``). Page: docs/transceivers.md.
"""
