"""Processes that a test session starts once and gives jobs to, and that are gone after it."""

import multiprocessing
import os
import traceback

from trainers import free_port

PATIENCE = 120  # seconds for one job: a process that waits for another one waits for ever


class Ranks:
    """Processes; ``run`` lets the first ones do the same job as ranks of one group.

    Started when a job first needs them, by spawn, so that none inherits threads or locks; they end
    when their pipe does.
    """

    def __init__(self):
        self.pipes, self.processes = [], []

    def start(self, world_size):
        """Have at least so many of them."""
        context = multiprocessing.get_context("spawn")
        while len(self.processes) < world_size:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, world_size, job, *args, **kwargs):
        """The answers of ``job(world_size, *args, **kwargs)``, one a rank."""
        self.start(world_size)
        port = free_port()
        pipes = self.pipes[:world_size]
        for rank, pipe in enumerate(pipes):
            pipe.send((rank, world_size, port, job, args, kwargs))
        answers, errors = [], []
        for rank, pipe in enumerate(pipes):
            try:
                answer, error = pipe.recv() if pipe.poll(PATIENCE) else (None, "no answer in time")
            except EOFError:
                answer, error = None, "the process died"
            answers.append(answer)
            if error is not None:
                errors.append(f"rank {rank} of {world_size}: {error}")
        if errors:
            self.stop()
            raise RuntimeError("\n".join(errors))
        return answers

    def stop(self):
        """End them, whatever they are doing."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


def _serve(pipe):
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            rank, world_size, port, job, args, kwargs = pipe.recv()
        except EOFError:
            return
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(world_size),
            "NODE_RANK": "0",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        try:
            answer, error = job(world_size, *args, **kwargs), None
        except BaseException:
            answer, error = None, traceback.format_exc()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        pipe.send((answer, error))
