"""Pictures to train and measure on: fetched photographs, the usual data sets, any folder; NumPy arrays throughout."""

from semcom_gym.transceivers.data.cache import cache_folder, describe, table
from semcom_gym.transceivers.data.composites import composites
from semcom_gym.transceivers.data.crops import crops
from semcom_gym.transceivers.data.fetch import FETCHED, fetch
from semcom_gym.transceivers.data.sets import SPLITS, STREAMS, Images, identity, load

__all__ = [
    "FETCHED",
    "SPLITS",
    "STREAMS",
    "Images",
    "cache_folder",
    "composites",
    "crops",
    "describe",
    "fetch",
    "identity",
    "load",
    "table",
]
