"Programs of several processes, for tests."
import multiprocessing, os, subprocess, sys

FRESH = multiprocessing.get_context('forkserver') # a new process each time, with the libraries already there
FRESH.set_forkserver_preload(['dacl_dr.training.recipe', 'dacl_dr.search.indexing', 'sentence_transformers'])


def start(function, *args):
    "A new process at work on a function of a test's module."
    p = FRESH.Process(target=function, args=args)
    p.start()
    return p


def torchrun(*args, **kwargs):
    "Two processes on this machine."
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1'},
        **kwargs)


def left_on_screen(err):
    """What a terminal still shows of `err`: a progress bar, seen on a slow machine alone, is wiped by what comes after
    it."""
    return '\n'.join(line.rsplit('\r', 1)[-1] for line in err.split('\n'))
