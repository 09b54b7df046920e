"""An oracle for Slurm: an owner with ``task=f"slurm:{SLURM_JOB_ID}"`` is dead once its job has ended."""

from __future__ import annotations

import re
import subprocess

from lockkit import hookimpl
from lockkit.facts import Owner

RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE"}
# NODE_FAIL is in neither: Slurm has lost the node, and the job's processes may still work on it.


class SlurmOracle:
    @hookimpl
    def lockkit_owner_alive(self, owner: Owner) -> bool | None:
        job = re.fullmatch(r"slurm:(\d+)", owner.task or "")
        if job is None:
            return None  # not ours
        line = ["scontrol", "show", "job", job[1], "--oneliner"]
        answer = subprocess.run(line, capture_output=True, text=True, check=True, timeout=4).stdout
        state = re.search(r"\bJobState=(\w+)", answer)
        if state is None or state[1] not in RUNNING | ENDED:
            return None
        return state[1] in RUNNING


plugin = SlurmOracle()
