"""Runs functions in processes forked from the one of the tests, which takes no time for imports."""

import logging
import multiprocessing
import os
import socket
import traceback

import torch

FORK = multiprocessing.get_context("fork")


class Fork:
    """A function that runs in a process of its own.

    Args:
        function: Function of the arguments, whose result can be pickled.
        arguments: Arguments of the function.
        environment: Environment variables to set in the process.
    """

    def __init__(self, function, *arguments, environment=None):
        self._receiver, sender = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=self._run, args=(sender, function, arguments))
        self._environment = environment or {}
        self.process.start()
        sender.close()

    def _run(self, sender, function, arguments):
        # The threads of OpenMP are not forked.
        torch.set_num_threads(1)
        os.environ |= self._environment
        try:
            sender.send((True, function(*arguments)))
        except BaseException:
            sender.send((False, traceback.format_exc()))
        finally:
            # The tests' own process does what comes at their end.
            os._exit(0)

    def result(self):
        """Wait for the process and return the result of the function."""
        try:
            assert self._receiver.poll(200), "the process does not end"
            succeeded, result = self._receiver.recv()
        except EOFError:
            succeeded, result = False, "the process ended without a result"
        assert succeeded, result
        self.process.join()
        return result

    def kill(self):
        """End the process by SIGKILL and return its exit status."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode


def in_processes(number, function, *arguments):
    """Return the results of a function in several processes at the same time."""
    return _results([Fork(function, *arguments) for _ in range(number)])


def in_two_ranks(function, *arguments):
    """Return what a function returns in rank 0 and in rank 1 of a distributed run.

    Lightning and torch find the ranks in the environment, so a trainer of two devices with the
    strategy ``ddp`` starts no processes itself.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    world = address | {"WORLD_SIZE": "2", "NODE_RANK": "0"}
    return _results([Fork(function, *arguments, environment=world | rank) for rank in ranks])


def _results(forks):
    try:
        return [fork.result() for fork in forks]
    finally:
        for fork in forks:
            fork.kill()


class Messages(logging.Handler):
    """Collects what the package logs in a ``with`` block, from level INFO on."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())

    def __enter__(self):
        logger = logging.getLogger("spinlock")
        self._level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        return self.texts

    def __exit__(self, *_):
        logger = logging.getLogger("spinlock")
        logger.removeHandler(self)
        logger.setLevel(self._level)
