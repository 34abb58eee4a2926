"""The processes of one job: they begin alike, and what ends one of them ends all.

JAX's runtime lets the others wait for minutes where one process has failed. So each process tells the others by the key-value
store of that runtime, which a thread of each looks at every second: an error of one ends all with its sentence and exit code.
"""

import atexit
import contextlib
import itertools
import json
import os
import pathlib
import re
import select
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed  # the store of the runtime has no public name
from jax.experimental import multihost_utils
from jax.extend import backend

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files, say

STOPPED = 143  # exit code after SIGTERM, with everything saved
GONE = 5  # exit code where another process of the job is gone without a word
_STORE = "mixaug_jax"  # what the keys begin with
_ENDED, _ALIVE, _SEEN, _DONE, _LEFT = (
    f"{_STORE}/{name}" for name in ("ended", "alive", "seen", "done", "left")
)
_TOKEN = ".shared-"
_LONG = 600_000  # milliseconds of one wait
# A key is written once; all processes come by the comparisons in the same order.
_ROUNDS = itertools.count()
# What errors of the runtime begin with; where arrays are read they come as ValueError.
_BROKEN = re.compile("(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ")
_SECONDS = 1.0  # between two looks at the store
_OVER = 0  # the byte that ends `_watch`; no signal has this number
_PATIENCE = 5.0  # seconds that process 0, which holds the store, waits for the others to have read why all end


def join(*, heartbeat: int = 100, wait: int = 300) -> None:
    """Joins the processes of one job, of which the first one speaks.

    TPU pods, Slurm and Kubernetes are detected; elsewhere set the variables JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Args:
      heartbeat: seconds without a sign of life after which a process is taken for dead.
      wait: seconds for all processes to come.

    Raises:
      ValueError: no such job is found. Where not all processes have come in time, this one ends with exit code 2.
    """
    number, index = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    # The runtime aborts when it has waited long enough, so the sentence comes a little before.
    late = threading.Timer(wait, _too_late, (number or "the", wait))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            num_processes=int(number) if number else None,
            process_id=int(index) if index else None,
            initialization_timeout=wait + 60,
            # Later than `_watch`, which has a sentence for it: the runtime aborts.
            heartbeat_timeout_seconds=2 * heartbeat + 30,
        )
    except ValueError as error:
        raise ValueError(
            "--multihost found no cluster; set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, "
            f"or leave --multihost out ({error})"
        ) from error
    finally:
        late.cancel()
    if not is_main():
        say.mute()
    if jax.process_count() > 1:
        wake, left = _signals(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(heartbeat, wake, left), daemon=True)
        watcher.start()
        atexit.register(_farewell, watcher, wake, left)
        _connect()


def _connect():
    """Makes the connections that collectives need, between the processes and between all devices, while all are here: on CPUs
    the first one over some devices is given up after 30 s of waiting for the last of its processes."""
    devices_lib.barrier("all processes are here")
    summed = devices_lib.pmap(
        lambda x: jax.lax.psum(x, devices_lib.AXIS), (devices_lib.SHARDED,), devices_lib.REPLICATED
    )
    ones = np.ones(jax.local_device_count(), np.int32)
    summed(devices_lib.shard_batch(ones)).block_until_ready()


def _too_late(number, wait):
    say.error(f"not all of {number} processes came within {wait} s; --wait_s sets how long to wait")
    os._exit(2)


def is_main() -> bool:
    """True in the one process that writes tables and logs."""
    return jax.process_index() == 0


def compare(what: str, values: Mapping[str, Any]) -> None:
    """Makes sure that all processes have the same values, before anything is compiled.

    Args:
      what: names the comparison.
      values: {key: what JSON can hold}.

    Raises:
      ValueError: in every process, where they differ; says where.
    """
    if jax.process_count() == 1:
        return
    store, mine = _store(), jax.process_index()
    place = f"{_STORE}/{next(_ROUNDS)}"
    store.key_value_set(f"{place}/{mine}", json.dumps(values, default=str, sort_keys=True))
    # Through the store and not the devices: what differs may be what devices would have to agree on.
    first = json.loads(_waited(store, f"{place}/0"))
    for other in range(1, jax.process_count()):
        found = json.loads(_waited(store, f"{place}/{other}"))
        keys = [k for k in {**first, **found} if first.get(k) != found.get(k)]
        if keys:
            differing = "; ".join(f"{k}: {first.get(k)} and {found.get(k)}" for k in keys[:4])
            more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
            raise ValueError(
                f"processes 0 and {other} of this job differ in their {what} ({differing}{more}); start all with the same"
            )


def compare_views(path: os.PathLike | str, seen: Mapping[str, Any]) -> None:
    """`compare` of what each process finds on the disk at a place: who went another way would wait for the others for ever."""
    compare(f"view of {path}, which must be on a disk that all share", seen)


def fail(code: int, sentence: str) -> NoReturn:
    """Ends this process, and all others of its job, with an exit code; says why here, as the others do there."""
    say.error(sentence)
    if jax.process_count() > 1:
        # Suppressed: another has failed first, or there is nobody left to tell.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _store().key_value_set(_ENDED, json.dumps([jax.process_index(), code, sentence]))
        _end(code)
    sys.exit(code)


@contextlib.contextmanager
def one_fate(exit_code: Callable[[BaseException], int], heartbeat: int = 100) -> Iterator[None]:
    """A context whose errors end all processes of the job: see `fail`. Alone, a process keeps its errors.

    Args:
      exit_code: of an error; 1 for one that nobody expects, which is printed in full.
      heartbeat: as in `join`.
    """
    try:
        yield
    except Exception as error:
        code = exit_code(error)
        # After SIGTERM in training every process has saved, and comes here by itself.
        if jax.process_count() == 1 or code == STOPPED:
            raise
        if is_broken(error):
            # A collective breaks where another process is gone, which is what a user has to know: `_watch` will see it.
            time.sleep(heartbeat + 5 * _SECONDS)
            code = 1
        if code == 1:
            traceback.print_exc()
        fail(code, " ".join(str(error).split()))


def is_broken(error: BaseException) -> bool:
    """Whether an error says that a collective has failed, as where another process is gone."""
    return isinstance(error, jax.errors.JaxRuntimeError) or bool(_BROKEN.match(str(error)))


def agreed(value: bool) -> bool:
    """What process 0 says, in all processes: so that all go the same way where it alone knows, such as what is on the disk."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.int32(value)))


def check_shared(folder: pathlib.Path, what: str = "--workdir") -> None:
    """Makes sure that every process of the job sees the same folder, which is made where missing.

    Args:
      folder: which.
      what: says what names it.

    Raises:
      ValueError: in a process that does not see it.
    """
    if jax.process_count() == 1:
        return
    # A key of its own for each call, as the store keeps what earlier ones left.
    key = f"{_STORE}/{next(_ROUNDS)}"
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{_TOKEN}*"):
            old.unlink()
        token = f"{_TOKEN}{uuid.uuid4().hex}"
        (folder / token).touch()
        _store().key_value_set(key, token)
    token = _waited(_store(), key)
    # A name that nobody can have guessed: a folder of the same path on another disk does not hold it.
    if not (folder / token).exists():
        raise ValueError(
            f"{folder} is not the folder that process 0 sees there; {what} must be on a disk that all processes share"
        )
    _store().wait_at_barrier(key, _LONG)
    if is_main():
        (folder / token).unlink()


@contextlib.contextmanager
def claimed(path: os.PathLike | str) -> Iterator[None]:
    """`files.claim` for a job: its first process holds the lock file, and where it cannot, all of them raise.

    Raises:
      files.BusyError: another job holds it.
    """
    with contextlib.ExitStack() as held:
        busy = None
        if is_main():
            try:
                held.enter_context(files.claim(path))
            except files.BusyError as error:
                busy = error
        # All raise, or the others would wait for the first one at the next collective.
        if agreed(busy is not None):
            busy = busy or files.BusyError(f"{pathlib.Path(path).parent} is in use by another job")
        if busy is not None:
            raise busy
        yield


def stop_at_signals() -> None:
    """Makes SIGTERM end all processes at once, from now on: what has been written is whole, and the rest is made again.

    Training does otherwise: all of its processes save after the same step.
    """
    if jax.process_count() > 1 and threading.current_thread() is threading.main_thread():
        # Only noted here: the main thread may wait in a collective. The thread that watches is woken, and acts.
        signal.signal(signal.SIGTERM, lambda *_: None)


def _signals():
    """Two sockets: the first one gets a byte for every signal that Python handles, and what is sent by the second."""
    wake, ours = socket.socketpair()
    for end in (wake, ours):
        end.setblocking(False)
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
    return wake, ours  # both, for a socket that is garbage is closed


def _watch(heartbeat, wake, left):
    """Looks for the end of another process, and gives signs of life; until `_farewell` ends it."""
    me, beats, began, store = jax.process_index(), 0, time.monotonic(), _store()
    seen = {process: ("", began) for process in range(jax.process_count()) if process != me}
    while True:
        woken = _woken(wake[0])
        if _OVER in woken:
            return
        # A signal may come to one process alone; `fail` tells the others, so that all of them stop.
        if signal.SIGTERM in woken:
            fail(
                STOPPED,
                "stopped by a signal: what is written is whole, and the same command goes on from there",
            )
        try:
            beats += 1
            store.key_value_set(f"{_ALIVE}/{me}", str(beats), allow_overwrite=True)
            known = dict(store.key_value_dir_get(_STORE))
        except jax.errors.JaxRuntimeError:
            if left.is_set():  # JAX takes the store down
                continue
            say.error(
                "process 0, which all others of the job depend on, is gone; the same command goes on from the last checkpoint"
            )
            # Nobody is left to be told, and from a thread nothing else ends the process.
            os._exit(GONE)
        if _ENDED in known:
            process, code, sentence = json.loads(known[_ENDED])
            say.error(f"process {process} of the job ended with: {sentence}")
            _end(code)
        now = time.monotonic()
        for process, (last, when) in seen.items():
            beat = known.get(f"{_ALIVE}/{process}", "")
            # Who has left by itself gives no more signs, and is not dead.
            if beat != last or f"{_LEFT}/{process}" in known:
                seen[process] = (beat, now)
            elif now - when > heartbeat:
                fail(GONE, f"process {process} of the job has given no sign of life for {heartbeat} s: it was killed, or its "
                     "machine is gone; the same command goes on from the last checkpoint")  # fmt: skip


def _woken(wake) -> bytes:
    """The bytes that have come, after the first of them or after `_SECONDS`."""
    ready, _, _ = select.select([wake], [], [], _SECONDS)
    return wake.recv(64) if ready else b""


def _end(code) -> NoReturn:
    """Ends this process without JAX's own farewell, which would wait for processes that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    others = set(range(jax.process_count())) - {jax.process_index()}
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the store may be gone already
        _store().key_value_set(f"{_SEEN}/{jax.process_index()}", "", allow_overwrite=True)
        end = time.monotonic() + _PATIENCE
        while is_main() and others and time.monotonic() < end:
            known = dict(_store().key_value_dir_get(_STORE))
            others -= {k for k in others if f"{_SEEN}/{k}" in known or f"{_LEFT}/{k}" in known}
            time.sleep(0.1)
    os._exit(code)


def _farewell(watcher, wake, left):
    """What JAX does at the end, here, so that the thread that watches ends after it and before the interpreter, which aborts
    where a thread is in a call of JAX's."""
    try:
        _leave(left)
        # First, so that a collective breaks in which others wait for a process that has failed.
        backend.clear_backends()
        jax.distributed.shutdown()
    finally:
        wake[1].send(bytes([_OVER]))
        watcher.join()


def _leave(left):
    """A process that has done its part waits for the others here: JAX's own farewell becomes an error of all after five
    minutes, which the first process may take for a page. It gives signs of life till all are done, since JAX waits for the
    dead, too, and then aborts; only who has seen that all are done may be silent."""
    # After an error that nobody has caught others may wait for this one.
    others = range(0 if hasattr(sys, "last_value") else jax.process_count())
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        store, me = _store(), jax.process_index()
        for stage in (_DONE, _LEFT):
            store.key_value_set(f"{stage}/{me}", "", allow_overwrite=True)
            for other in others:
                _waited(store, f"{stage}/{other}")
    left.set()


def _waited(store, key) -> str:
    """What a process writes, however late: `_watch` ends the waiting where that process has ended."""
    while True:
        try:
            return store.blocking_key_value_get(key, _LONG)
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith("DEADLINE_EXCEEDED"):
                raise


def _store():
    return distributed.global_state.client
