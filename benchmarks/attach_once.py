"""`python -m benchmarks.attach_once WHO FOLDER ID NETNS`: one ADD and DEL in this process; its peak memory as JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from benchmarks.contestants import InProcess
from benchmarks.stage import Pod
from benchmarks.starting import of_this_process

if __name__ == "__main__":
    who, folder, container_id, netns_path = sys.argv[1:]
    library, pod = InProcess(who, Path(folder)), Pod(container_id, netns_path)
    library.add(pod)
    library.delete(pod)
    sys.stdout.buffer.write(msgspec.json.encode(of_this_process(who)))
