"""Finished work from many processes: what a sweep lacks goes through joblib, on this machine or on a cluster.

Nothing is scheduled here: joblib hands the calls to loky (processes of this machine), Ray or Dask, and their results
come back as they finish. Calls of a worker that died are handed out again by the cluster, and by a new pool where the
backend gives up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from semcom_gym.benchmarks import store
from semcom_gym.benchmarks.errors import UserError
from semcom_gym.envs import processes, validate

BACKENDS = ("loky", "ray", "dask")
PACKAGES = {"loky": "joblib", "ray": "ray", "dask": "distributed"}
EXTRAS = {"loky": "report", "ray": "ray", "dask": "dask"}
FLOORS = ("envs", "baselines", "agents", "transceivers", "benchmarks")
TRIES = 3  # losses of a worker in a row, without a result between them, before the work is given up
PATIENCE_S = 20  # for a cluster to answer
IDLE_S = 20  # after which a process of loky without work ends
WATCH_S = 1.0  # between looks at whether the process that started a worker is there
TRACKERS = "ignore:resource_tracker:UserWarning"
K = TypeVar("K")


@dataclasses.dataclass(frozen=True)
class Workers:
    """Processes that compute. jobs: how many calls run at once. options: of joblib's backend."""

    backend: str
    jobs: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        """None in another process: a worker has no workers, and what holds them may be sent to one."""
        return type(None), ()

    def run(self, calls: Mapping[K, Callable[[], Any]]) -> Iterator[tuple[K, Any]]:
        """The key and the result of every call, in the order in which they finish; close the iterator to stop them.

        Raises what a call raises, and UserError where workers keep dying or have other code than this process.
        """
        left = dict(calls)
        losses = 0
        while left:
            before = len(left)
            try:
                with self._results(left) as results:
                    for key, value in results:
                        del left[key]
                        yield key, value
            except _lost(self.backend) as error:
                losses = 1 if len(left) < before else losses + 1
                if losses == TRIES:
                    reason = " ".join(str(error).split())[:200]
                    raise UserError(
                        f"{self.backend}: workers died {TRIES} times in a row without a result between, as when memory "
                        f"runs out ({reason}); what is finished is kept, the same command goes on from there"
                    ) from error

    @contextlib.contextmanager
    def _results(self, calls: Mapping[K, Callable[[], Any]]) -> Iterator[Iterator[tuple[K, Any]]]:
        import joblib

        code = store.code_version(*FLOORS)
        with joblib.parallel_config(self.backend, n_jobs=self.jobs, **self.options):
            # a call at a time, so that each result is kept when it is there and no call waits in line for a worker
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=self.jobs)
            with processes.shielded():  # a Ctrl-C is this process's, which ends its workers
                results = parallel([joblib.delayed(_call)(key, call, code) for key, call in calls.items()])
            try:
                yield results
            finally:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that calls are cancelled
                    results.close()


def connect(backend: str | None, jobs: int | None = None, address: str | None = None) -> Workers | None:
    """The workers of a backend, of loky if only ``jobs`` is given; None, for this process alone, without both.

    jobs: calls at once, all that there is room for if None. address: of a running cluster; None is what RAY_ADDRESS or
    DASK_SCHEDULER_ADDRESS says, for Ray otherwise the one on this machine. Raises ValueError, ModuleNotFoundError or
    UserError in one line.
    """
    if jobs is not None:
        validate.integer("jobs", jobs)
    if backend is None and address is not None:
        raise ValueError("--address is that of a cluster: say --backend ray or --backend dask")
    if backend is None and jobs in (None, 1):
        return None
    backend = "loky" if backend is None else backend
    validate.choice("backend", backend, BACKENDS)
    for module in ("joblib", PACKAGES[backend]):
        _require(module, backend)
    if backend == "loky":
        if address is not None:
            raise ValueError("--address is that of a Ray or Dask cluster, not of loky, which runs on this machine")
        _silence_trackers()
        watched = {"initializer": _leave_with, "initargs": (os.getpid(),)}
        return _sized(backend, jobs, {"idle_worker_timeout": IDLE_S, **watched})
    options = _ray(address) if backend == "ray" else _dask(address)
    return _sized(backend, jobs, options)


def _silence_trackers() -> None:
    """What an interrupted pool leaves behind is cleaned up by a process of its own, which need not say so."""
    known = os.environ.get("PYTHONWARNINGS")
    if TRACKERS not in (known or ""):
        os.environ["PYTHONWARNINGS"] = f"{known},{TRACKERS}" if known else TRACKERS


def _require(module: str, backend: str) -> None:
    import importlib

    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"--backend {backend} needs {module}: pip install 'semcom-gym[{EXTRAS[backend]}]'"
        ) from None


def _sized(backend: str, jobs: int | None, options: dict[str, Any]) -> Workers:
    """The workers, as many as there are if nothing is said. A cluster must have as many as are asked for, and two."""
    import joblib

    with joblib.parallel_config(backend, **options):
        room = joblib.effective_n_jobs(-1)
    if backend == "loky":
        return Workers(backend, room if jobs is None else jobs, options)
    if room < 2:  # with one, joblib would compute in this process
        raise UserError(f"the {backend} cluster has room for {room} job(s): add workers, or drop --backend")
    if jobs is not None and not 2 <= jobs <= room:
        raise ValueError(f"--jobs must be 2 to {room}, what the {backend} cluster has room for, got {jobs}")
    return Workers(backend, room if jobs is None else jobs, options)


def _ray(address: str | None) -> dict[str, Any]:
    """Join a Ray cluster; its workers take a core each and are started again, with their call, if they die."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is said here, in one line
    import joblib
    import ray
    from ray.exceptions import RayError
    from ray.util.joblib.ray_backend import RayBackend

    class Backend(RayBackend):  # type: ignore[misc]
        """Ray's, of which joblib cannot know that its results come one by one."""

        supports_return_generator = True

    asked = address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _knock(asked)
        ray.init(address=asked, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise _unreachable("ray", asked, error) from None
    joblib.register_parallel_backend("ray", Backend)
    again = {"max_restarts": TRIES, "max_task_retries": TRIES}
    return {"ray_remote_args": {"num_cpus": 1, "scheduling_strategy": "SPREAD", **again}}


def _dask(address: str | None) -> dict[str, Any]:
    """Join a Dask cluster, which hands out the calls of a worker that died again."""
    from distributed import Client

    asked = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not asked:
        raise ValueError("no Dask cluster is named: give --address or DASK_SCHEDULER_ADDRESS, such as tcp://HOST:8786")
    try:
        client = Client(asked, timeout=PATIENCE_S)
        client.wait_for_workers(1, timeout=PATIENCE_S)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise _unreachable("dask", asked, error) from None
    return {"client": client}


def _knock(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT: Ray itself would ask for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()


def _unreachable(backend: str, address: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"no {backend} cluster at {address!r} can be reached, or it has no workers: {reason}")


def _lost(backend: str) -> tuple[type[BaseException], ...]:
    """What joblib raises when a backend has given up a worker that died."""
    if backend == "loky":
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        return (TerminatedWorkerError,)
    if backend == "ray":
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

        return (RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError)
    from distributed import KilledWorker

    return (KilledWorker,)


def _leave_with(parent: int) -> None:
    """In a process of loky: end when the one that started it is gone, killed say, also in the middle of a message."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _call(key: K, call: Callable[[], Any], code: str) -> tuple[K, Any]:
    """In a worker: the key and the result of a call, if the worker has the code that the result will be filed under."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # the default is a semaphore, which a killed worker would leave behind
    if store.code_version(*FLOORS) != code:
        raise UserError(f"the worker on {socket.gethostname()} has other code of semcom-gym than this process")
    return key, call()
