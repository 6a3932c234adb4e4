"""MU-ASCC: source rates, power and beamforming for data and semantic users of a multi-antenna base station."""

from semcom_gym.envs.ascc import actions, instance, physics
from semcom_gym.envs.ascc.instance import PRESETS, Instance, Params
from semcom_gym.envs.ascc.physics import Allocation
from semcom_gym.envs.problems import Problem

PROBLEM = Problem(
    name="ascc",
    paper="adaptive source-channel coding for multi-user semantic and data communications (MU-ASCC)",
    maximise=False,
    objective="weighted end-to-end distortion",
    Params=Params,
    PRESETS=PRESETS,
    Instance=Instance,
    Allocation=Allocation,
    instance_shapes=instance.shapes,
    allocation_shapes=physics.shapes,
    signed=("channel_re", "channel_im", "beam_re", "beam_im"),
    exact_actions={"beamforming": "explicit"},
    uniforms_per_instance=instance.uniforms_per_instance,
    build=instance.build,
    check_instance=instance.check,
    check_allocation=physics.check,
    evaluate_unchecked=physics.evaluate,
    decode=actions.decode,
    encode=actions.encode,
    observe=actions.observe,
    action_blocks=actions.action_blocks,
    user_features=actions.USER_FEATURES,
    pair_features=actions.PAIR_FEATURES,
    global_features=actions.GLOBAL_FEATURES,
)
