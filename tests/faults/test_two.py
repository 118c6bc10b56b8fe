"Two processes at once, a clock that runs backwards, a worker that dies."
import os, signal, subprocess, sys, time
from pathlib import Path

import pytest

from trials import COMMANDS, Process, files, fresh, indexing, litter, one_line, results, same_results, training

COMMON = (
    'convert', 'train, stage 1', 'embed', 'build-index', 'run-ef-sweep', 'diagnose', 'tune', 'adapt', 'quickstart')
pytestmark = pytest.mark.slow


@pytest.mark.parametrize('name', COMMON)
def test_two_in_one_folder(world, undisturbed, record, tmp_path_factory, name):
    "The second is refused by one line, or waits."
    command, home = COMMANDS[name], tmp_path_factory.getbasetemp()/'kills'
    whole, _ = undisturbed(name, home)
    record(name, 'two processes in one folder')
    a = Process(command, world, fresh(home, command, world), home.parent/'kills.logs')
    a.wait_for_work()
    b = Process(command, world, home, home.parent/'second.logs').wait()
    a.wait()
    assert a.code == 0, a.err()[-3000:]
    if b.code: one_line(b, 2); assert 'another dacl process is at work here' in b.err()
    same_results(home, whole)


def test_two_with_one_cache(world, undisturbed, record, tmp_path_factory):
    home = tmp_path_factory.getbasetemp()/'kills'
    whole, _ = undisturbed('convert', home)
    record('convert', 'two processes with one cache')
    command = COMMANDS['convert']
    fresh(home, command, world)
    argv = [str(home/'other') if str(a) == str(home/'results') else a for a in command.argv(world, home)]
    both = [
        Process(command, world, home, home.parent/'kills.logs'),
        Process(command, world, home, home.parent/'second.logs', argv=argv)]
    for p in both: assert p.wait().code == 0, p.err()[-3000:]
    found = results(home)
    for n, v in whole.items():
        assert found[n] == v
        assert (
            not n.startswith('results/') or n.endswith('.command.json')
            or found[n.replace('results/', 'other/', 1)] == v)
    assert not litter(home)


@pytest.mark.parametrize('name', ('convert', 'train, stage 1', 'build-index', 'tune', 'quickstart'))
def test_a_clock_that_runs_backwards(world, undisturbed, record, tmp_path_factory, name):
    "The same results; and what is done stays done whatever the times of the files are."
    command, home = COMMANDS[name], tmp_path_factory.getbasetemp()/'kills'
    logs, (whole, _) = home.parent/'kills.logs', undisturbed(name, home)
    record(name, 'a clock that runs backwards')
    p = Process(command, world, fresh(home, command, world), logs, clock=time.time()).wait()
    assert p.code == 0, p.err()[-3000:]
    same_results(home, whole)
    kept = {
        n: f for n, f in files(home).items()
        if n.endswith(('data.arrow', 'model.safetensors', '.npy', 'index.faiss', 'sweep.parquet', '.trial'))}
    inodes = {n: f.stat().st_ino for n, f in kept.items()}
    assert inodes
    for when in (1e9, 4e9): # long ago, far ahead
        for f in [*files(home).values(), *files(world.root).values()]: os.utime(f, (when, when))
        p = Process(command, world, home, logs).wait()
        assert p.code == 0, p.err()[-3000:]
        same_results(home, whole)
        assert {n: f.stat().st_ino for n, f in kept.items()} == inodes # nothing was made again


def torchrun(argv): # two processes on this machine, in a session of their own
    command = [
        sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '--no-python',
        Path(sys.executable).with_name('dacl'), *argv]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ranks(p)->dict[int, int]: # rank → process
    found = {}
    for f in Path('/proc').glob('[0-9]*/environ'):
        try:
            env = dict(x.split('=', 1) for x in f.read_text().split('\0') if '=' in x)
            parent = int((f.parent/'stat').read_text().rpartition(')')[2].split()[1])
        except (OSError, ValueError): continue
        if parent == p.pid and 'RANK' in env: found[int(env['RANK'])] = int(f.parent.name)
    return found


@pytest.mark.parametrize('name', ('embed', 'train'))
@pytest.mark.parametrize('rank', (0, 1))
def test_a_worker_that_dies(world, undisturbed, record, tmp_path_factory, name, rank):
    "The whole ends with an error in a minute; started again it completes."
    home = tmp_path_factory.getbasetemp()/'kills'
    command = COMMANDS['embed' if name == 'embed' else 'train, stage 1']
    fresh(home, command, world)
    argv = [*indexing(world, home/'index'), '--shard_rows', 20] if name == 'embed' else training(world, home)
    record(name, 'a worker of two dies')
    p, begun = torchrun(argv), (home/'index'/'embeddings'/'plan.json' if name == 'embed' else home/'run'/'recipe.json')
    for _ in range(3000):
        if begun.exists() or p.poll() is not None: break
        time.sleep(.05)
    assert begun.exists() and p.poll() is None
    time.sleep(.3)
    os.kill(ranks(p)[rank], signal.SIGKILL)
    try: p.wait(90)
    finally:
        if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
    assert p.returncode
    p = torchrun(argv)
    err = p.communicate(timeout=300)[1]
    assert p.returncode == 0, err[-3000:]
    assert not litter(home), litter(home)
    assert (home/'index'/'manifest.json' if name == 'embed' else home/'run'/'final_model').exists()
