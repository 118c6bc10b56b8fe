"""A full disk and a folder that can't be written are one line, and nothing half-written stays; with room again the
command ends as if nothing had happened."""
import subprocess, sys

import numpy as np
import pytest

from trials import COMMANDS, Process, content, files, fresh, litter, one_line, room, same_results

HARMED = ('convert', 'train, stage 3', 'build-index', 'run-ef-sweep', 'diagnose', 'tune', 'adapt', 'quickstart')


def mount(*args): return subprocess.run(['mount', *map(str, args)], capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path_factory):
    "A disk in memory, the same folder each time."
    home = tmp_path_factory.getbasetemp()/'disk'
    home.mkdir(exist_ok=True)
    if sys.platform != 'linux' or mount('-t', 'tmpfs', '-o', 'size=200m', 'tmpfs', home).returncode:
        pytest.skip('a disk in memory needs Linux and the right to mount')
    yield home
    subprocess.run(['umount', '-l', home])


def again(command, world, home, logs, whole):
    "With room again."
    assert mount('-o', 'remount,rw,size=200m', home).returncode == 0
    p = Process(command, world, home, logs).wait()
    assert p.code == 0, p.err()[-3000:]
    same_results(home, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, share',
    [
        (n, s) for n in HARMED
        for s in np.random.default_rng(list(n.encode())).uniform(
            .02, .95, 1 if n == 'quickstart' else 2).round(3).tolist()])
def test_a_full_disk(world, undisturbed, record, disk, name, share):
    command, logs = COMMANDS[name], disk.parent/'disk.logs'
    whole, _ = undisturbed(name, disk, 'disk')
    before = room(fresh(disk, command, world))
    assert mount(
        '-o', f'remount,size={4 * int(before + share * max(8, undisturbed.pages[name, "disk"] - before))}k', disk
    ).returncode == 0
    p = Process(command, world, disk, logs).wait()
    record(name, 'full disk', met=p.code != 0) # else it fitted
    if p.code: one_line(p, 2)
    assert not litter(disk), litter(disk)
    for n, f in files(disk).items(): content(f)
    again(command, world, disk, logs, whole)


@pytest.mark.slow
@pytest.mark.parametrize('name', HARMED)
def test_a_folder_that_cannot_be_written(world, undisturbed, record, disk, name):
    command, logs = COMMANDS[name], disk.parent/'disk.logs'
    whole, _ = undisturbed(name, disk, 'disk')
    fresh(disk, command, world)
    assert mount('-o', 'remount,ro', disk).returncode == 0
    p = Process(command, world, disk, logs).wait()
    record(name, 'read-only folder', met=p.code != 0)
    one_line(p, 2)
    again(command, world, disk, logs, whole)
