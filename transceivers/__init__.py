"""Learned transceivers: images, channels, networks, training, and measurement of the curves that environments read.

Deep JSCC of images (``deepjscc``) and the task-oriented classifier (``classifier``). Their measured curves ship with
the environments (``semcom_gym.envs.curve``). Pages: docs/transceivers.md, docs/classifier.md, docs/iterative.md.
"""
