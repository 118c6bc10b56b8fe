"""Killed, terminated or interrupted at any moment of its work, a command that is started again ends as if nothing had
happened."""
import os, signal, time

import numpy as np
import pytest

from trials import COMMANDS, Process, content, files, fresh, one_line, results, same_results, visible

SIGNALS = {'SIGKILL': signal.SIGKILL, 'SIGTERM': signal.SIGTERM, 'Ctrl-C': signal.SIGINT}
# of each signal; 2 of the others
TIMES = {
    'run-study': 1, 'quickstart': 1, 'embed': 3, 'convert': 3, 'build-index': 3, 'levers': 5, 'tune': 6, 'adapt': 6}


def moments(name, fault, n): # shares of the undisturbed time
    rng = np.random.default_rng([*name.encode(), *fault.encode()])
    return rng.uniform(0, 1, n).round(4).tolist()


TRIALS = [(name, fault, m) for name in COMMANDS for fault in SIGNALS for m in moments(name, fault, TIMES.get(name, 2))]


@pytest.mark.slow
@pytest.mark.parametrize('name, fault, moment', TRIALS)
def test_stopped_and_started_again(world, undisturbed, record, tmp_path_factory, name, fault, moment):
    command, home = COMMANDS[name], tmp_path_factory.getbasetemp()/'kills'
    whole, seconds = undisturbed(name, home)
    p = Process(command, world, fresh(home, command, world), logs := home.parent/'kills.logs')
    began = p.wait_for_work()
    time.sleep(max(0, began + moment * seconds - time.monotonic()))
    if p.p.is_alive(): os.kill(p.p.pid, SIGNALS[fault]) # to the program alone, as a scheduler does
    p.wait(60)
    # Python leaves, and handles no signal
    silent = fault == 'SIGTERM' and p.code == -signal.SIGTERM and not p.err()
    too_late = p.code == 0 or silent and results(home) == whole
    record(name, fault, not too_late)
    p.alone_in_its_group(30) # what it started ends too
    if not too_late:
        if fault == 'SIGKILL': assert p.code == -signal.SIGKILL
        else: one_line(p, {'SIGTERM': 143, 'Ctrl-C': 130}[fault])
    for n, f in files(home).items():
        if visible(n): content(f) # what can be seen can be read to its end
    p = Process(command, world, home, logs).wait()
    assert p.code == 0, p.err()[-3000:]
    same_results(home, whole)
