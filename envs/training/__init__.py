"""Training of image semantic-communication networks: power, bandwidth, clock frequencies and compression."""

from semcom_gym.envs.problems import Problem
from semcom_gym.envs.training import actions, instance, physics
from semcom_gym.envs.training.instance import PRESETS, Instance, Params
from semcom_gym.envs.training.physics import Allocation

PROBLEM = Problem(
    name="training",
    paper="resource allocation for the training of image semantic communication networks",
    maximise=False,
    objective="weighted time and energy of a training round",
    Params=Params,
    PRESETS=PRESETS,
    Instance=Instance,
    Allocation=Allocation,
    instance_shapes=instance.shapes,
    allocation_shapes=physics.shapes,
    uniforms_per_instance=instance.uniforms_per_instance,
    build=instance.build,
    check_instance=instance.check,
    evaluate_unchecked=physics.evaluate,
    decode=actions.decode,
    encode=actions.encode,
    observe=actions.observe,
    action_blocks=actions.action_blocks,
    user_features=actions.USER_FEATURES,
    global_features=actions.GLOBAL_FEATURES,
)
