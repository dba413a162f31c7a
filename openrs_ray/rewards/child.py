"""Main of a checking process: receives a check, then judges items one by one on the main thread.

`python -m openrs_ray.rewards.child DESCRIPTOR MEMORY_BYTES PARENT` ends with its pipe and dies with its parent.
"""

import os
import pickle
import resource
import signal
import sys
from multiprocessing.connection import Connection

from openrs_ray.common.parent import end_with_parent
from openrs_ray.records import Status, Verdict


def main(descriptor: int, memory_bytes: int, parent: int) -> None:
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # which died before the line above
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    pipe = Connection(descriptor)
    try:
        check, warm_up = pickle.loads(pipe.recv_bytes())
        for item in warm_up:
            check(item)
        pipe.send("ready")
        while True:
            pickled_item = pipe.recv_bytes()
            try:
                verdict = check(pickle.loads(pickled_item))
            except Exception as error:  # becomes the item's verdict: one bad item must not end the process
                verdict = Verdict(Status.ERROR, {}, None, detail=f"{type(error).__name__}: {error}"[:500])
            pipe.send(verdict)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
