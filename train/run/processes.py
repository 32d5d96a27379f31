"""Several processes of one run: how they start, and how they stay together.

Each is the same program, on its own devices, with its own rows of every batch. What
depends on more than the options and the step (a signal, a clock, a disk) is said by
each in a round, `all_gather`, and heard by all, so that all of them go the same way. A
process that cannot go on says that in the round in which the others wait: all of them
end, with its sentence. A process that is killed says nothing; JAX ends the others when
its sign of life has been missing for --patience seconds.

With one process a round is the value itself.
"""

import contextlib
import itertools
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable

import jax

from gengen.errors import BadInput

from ..cli.options import RunOptions


class Refused(BadInput):
    """Another process has refused; its sentence."""


def start(run: RunOptions) -> None:
    """Meet the other processes, if there are any; before any device is used.

    BadInput where the options do not say who they are, or not all of them come.
    """
    if run.coordinator is None:
        for name in ("num_processes", "process_id"):
            if (value := getattr(run, name)) is not None:
                raise BadInput(
                    f"--{name.replace('_', '-')} {value} needs --coordinator HOST:PORT"
                )
        return
    if run.parallel == "pmap":
        raise BadInput(
            "--parallel pmap has the devices of one process only: leave it out, or "
            "leave out --coordinator"
        )
    if run.coordinator == "auto":
        where = {"num_processes": run.num_processes, "process_id": run.process_id}
    else:
        where = _address(run)
    # The signal is Stop's; JAX would keep it to itself.
    jax.config.update("jax_enable_preemption_service", False)
    with _giving_up(run):
        try:
            jax.distributed.initialize(
                **where,
                initialization_timeout=run.patience + 60,  # JAX would abort
                heartbeat_timeout_seconds=run.patience,
                shutdown_timeout_seconds=run.patience,
            )
        except ValueError as error:
            raise BadInput(
                f"--coordinator auto: the environment names no cluster ({error}): "
                "write --coordinator HOST:PORT --num-processes N --process-id I"
            ) from error


def _address(run: RunOptions) -> dict:
    coordinator, num, own = run.coordinator, run.num_processes, run.process_id
    host, _, port = coordinator.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise BadInput(
            f"--coordinator {coordinator}: write HOST:PORT, where process 0 runs, or "
            "auto, for what the cluster's environment says"
        )
    if num is None or own is None:
        raise BadInput(
            f"--coordinator {coordinator} needs --num-processes N and --process-id I"
        )
    if not 0 <= own < num:
        raise BadInput(
            f"--process-id {own} is none of {num} processes: they are 0 to {num - 1}"
        )
    if own == 0:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", int(port)))
            except OSError as error:
                raise BadInput(
                    f"--coordinator {coordinator}: process 0 cannot listen there "
                    f"({error.strerror}): choose another port"
                ) from error
    return {
        "coordinator_address": coordinator,
        "num_processes": num,
        "process_id": own,
        "cluster_detection_method": "deactivate",
    }


@contextlib.contextmanager
def _giving_up(run: RunOptions):
    """End with a sentence if the others have not come in time.

    From a thread, because JAX waits in C++, and ends by an abort.
    """

    def give_up():
        sys.stdout.flush()
        print(
            f"error: --coordinator {run.coordinator}: not all processes met there "
            f"within {run.patience} seconds: start all of them, with the same "
            "address, or wait longer (--patience)",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(run.patience, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _client():
    # As in orbax: JAX has no public name for its coordination service.
    from jax._src import distributed

    return distributed.global_state.client


def is_multiprocess() -> bool:
    """Whether the run has more than one process."""
    return _client() is not None and jax.process_count() > 1


def is_primary() -> bool:
    """Whether this process is the one that writes, draws and speaks."""
    return not is_multiprocess() or jax.process_index() == 0


_rounds = itertools.count()


def all_gather(said=None) -> list:
    """What each process says (JSON) in this round, in their order; waits for all.

    Refused, with its sentence, if one of them cannot go on.
    """
    if not is_multiprocess():
        return [said]
    number = _say({"said": said})
    keys = [_key(number, i) for i in range(jax.process_count())]
    heard = [json.loads(_wait(key)) for key in keys]
    if number:  # who speaks in this round has heard all of the last
        _client().key_value_delete(_key(number - 1, jax.process_index()))
    for i, what in enumerate(heard):
        if "refused" in what:
            raise Refused(f"process {i}: {what['refused']}")
    return [what["said"] for what in heard]


def _key(number: int, process: int) -> str:
    return f"gengen/{number}/{process}"


def _say(what: dict) -> int:
    number = next(_rounds)
    key = _key(number, jax.process_index())
    _client().key_value_set(key, json.dumps(what))
    return number


def _wait(key: str) -> str:
    while True:
        try:
            return _client().blocking_key_value_get(key, 1_000)
        except jax.errors.JaxRuntimeError as error:  # in between, Ctrl-C is heard
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


@contextlib.contextmanager
def fail_together():
    """What ends one process, in this block, ends all of them."""
    try:
        yield
    except (Refused, SystemExit):
        raise
    except BaseException as error:
        if is_multiprocess():
            own = str(error) if isinstance(error, BadInput) else first_line(error)
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # nobody hears it
                _say({"refused": own})
        raise


def try_everywhere(function: Callable, *arguments) -> str | None:
    """Call it on every process: the first failure's first line, None if there is none.

    Nothing that waits for another process may happen in it.
    """
    failure = None
    try:
        function(*arguments)
    except Exception as error:
        failure = first_line(error)
    return next(filter(None, all_gather(failure)), None)


def first_line(error: BaseException) -> str:
    """ "OSError: No space left on device"."""
    said = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *(line[:120] for line in said[:1])])


def same_options(options: dict) -> None:
    """BadInput unless all processes were given the same options (JSON)."""
    heard = all_gather(options)
    for i, theirs in enumerate(heard):
        for name in heard[0] | theirs:
            if theirs.get(name) != heard[0].get(name):
                raise BadInput(
                    f"process {i} was started with {name} {theirs.get(name)}, process "
                    f"0 with {name} {heard[0].get(name)}: give all the same options, "
                    "but for --process-id"
                )
