"""CRRA and CRRAUS: bandwidth, power, semantic compression and user selection for task-oriented communication."""

from semcom_gym.envs.crra import actions, instance, physics
from semcom_gym.envs.crra.instance import PRESETS, Instance, Params
from semcom_gym.envs.crra.physics import Allocation
from semcom_gym.envs.problems import Problem

PROBLEM = Problem(
    name="crra",
    paper="task-oriented semantic communication with adaptable semantic compression (CRRA, CRRAUS)",
    maximise=True,
    objective="weighted success probability of tasks",
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
