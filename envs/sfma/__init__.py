"""SC-SFMA: user pairing, power, bandwidth and compression for semantic feature multiple access."""

from semcom_gym.envs.problems import Problem
from semcom_gym.envs.sfma import actions, instance, physics
from semcom_gym.envs.sfma.instance import PRESETS, Instance, Params
from semcom_gym.envs.sfma.physics import Allocation
from semcom_gym.envs.sfma.prepared import Prepared

PROBLEM = Problem(
    name="sfma",
    paper="joint user pairing and resource allocation for semantic feature multiple access (SC-SFMA)",
    maximise=True,
    objective="sum rate [Mbit/s]",
    Params=Params,
    PRESETS=PRESETS,
    Instance=Instance,
    Allocation=Allocation,
    instance_shapes=instance.shapes,
    allocation_shapes=physics.shapes,
    signed=("distortion_tilt", "offset"),
    uniforms_per_instance=instance.uniforms_per_instance,
    build=instance.build,
    check_instance=instance.check,
    check_allocation=physics.check,
    evaluate_unchecked=physics.evaluate,
    decode=actions.decode,
    outcome_of=actions.outcome_of,
    prepare=Prepared.of,
    outcome_at=actions.outcome_at,
    encode=actions.encode,
    observe=actions.observe,
    action_blocks=actions.action_blocks,
    pair_blocks=actions.PAIR_BLOCKS,
    user_features=actions.USER_FEATURES,
    pair_features=actions.PAIR_FEATURES,
    global_features=actions.GLOBAL_FEATURES,
)
