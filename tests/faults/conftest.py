"One world for all faults, and the table of what was tried and what survived."
import os, sys
from collections import Counter
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from trials import COMMANDS, Process, fresh, make_world, results, room

ROOT = Path(__file__).resolve().parents[2]
TRIED, MET, SURVIVED = Counter(), Counter(), Counter() # met: the fault came while it was at work


@pytest.fixture(scope='session')
def world(tmp_path_factory): return make_world(tmp_path_factory.mktemp('world'))


@pytest.fixture(scope='session')
def undisturbed(world):
    "A command's results and the seconds its work takes, computed once."
    known = {}
    def of(name, home, key=''):
        if (name, key) not in known:
            command = COMMANDS[name]
            for _ in range(2): # the first warms caches up
                p = Process(command, world, fresh(home, command, world), home.parent/f'{home.name}.logs').wait()
                assert p.code == 0, p.err()[-3000:]
                of.pages[name, key] = room(home)
                first, known[name, key] = known.get((name, key)), (results(home), p.worked())
            assert first[0].keys() == known[name, key][0].keys() and (
                differ := [n for n in first[0] if first[0][n] != known[name, key][0][n]]) == [], differ
        return known[name, key]
    of.pages = {}
    return of


@pytest.fixture
def record(request):
    "Count a trial; it survived if the test passes."
    counted = []
    def tried(command, fault, met=True):
        counted.append((command, fault)); TRIED[command, fault] += 1; MET[command, fault] += met
    yield tried
    if request.node.stash.get(PASSED, False):
        for c in counted: SURVIVED[c] += 1


PASSED = pytest.StashKey()

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == 'call': item.stash[PASSED] = report.passed
    if report.failed: print(f'\n{item.name}: {report.longreprtext[-900:]}', file=sys.__stderr__, flush=True)
    return report


def pytest_terminal_summary(terminalreporter, config):
    if not TRIED: return
    terminalreporter.section('faults')
    row = '{:<20}{:<36}{:>6}{:>6}{:>9}'.format
    terminalreporter.write_line(row('command', 'fault', 'tried', 'met', 'survived'))
    rows = [(c, f, n, MET[c, f], SURVIVED[c, f]) for (c, f), n in TRIED.items()]
    for r in [*rows, ('all', '', *(sum(r[i] for r in rows) for i in (2, 3, 4)))]: terminalreporter.write_line(row(*r))
    table = pd.DataFrame(
        rows, columns=['command', 'fault', 'tried', 'met', 'survived']).assign(date=date.today().isoformat())
    if out := os.environ.get('FAULTS_CSV'): table.to_csv(out, index=False)
