"""Learned transceivers: images, channels, networks, training, and measurement of the curves that environments read.

Deep JSCC of images (``deepjscc``), the task-oriented classifier (``classifier``), SC-SFMA and its rivals (``sfma``), a
codec with a hyper-prior (``hyperprior``) and the digital chain (``coding``). Their measured curves ship with the
environments (``semcom_gym.envs.curve``). Pages: docs/transceivers.md and those it links to.
"""
