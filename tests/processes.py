"Programs of several processes, for tests."
import os, subprocess, sys


def torchrun(*args, **kwargs):
    "Two processes on this machine."
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1'}, **kwargs)
