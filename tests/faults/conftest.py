"One world for all faults, and the table of what was tried and what survived."
import os
from collections import Counter
from pathlib import Path

import pytest

from campaign import COMMANDS, Process, fresh, make_world, results, room

ROOT = Path(__file__).resolve().parents[2]
TRIED, SURVIVED = Counter(), Counter()


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
            assert first[0].keys() == known[name, key][0].keys() and (differ := [n for n in first[0] if first[0][n] != known[name, key][0][n]]) == [], differ
        return known[name, key]
    of.pages = {}
    return of


@pytest.fixture
def record(request):
    "Count a trial; it survived if the test goes on to its end."
    counted = []
    def tried(command, fault): counted.append((command, fault)); TRIED[command, fault] += 1
    yield tried
    if request.node.stash.get(FAILED, False) is False:
        for c in counted: SURVIVED[c] += 1


FAILED = pytest.StashKey()

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed: item.stash[FAILED] = True
    return report


def pytest_terminal_summary(terminalreporter, config):
    if not TRIED: return
    lines = [f'{c},{f},{n},{SURVIVED[c, f]}' for (c, f), n in TRIED.items()]
    terminalreporter.section('faults')
    terminalreporter.write_line(f"{'command':<20}{'fault':<44}{'tried':>6}{'survived':>9}")
    for (c, f), n in TRIED.items(): terminalreporter.write_line(f'{c:<20}{f:<44}{n:>6}{SURVIVED[c, f]:>9}')
    terminalreporter.write_line(f"{'all':<64}{sum(TRIED.values()):>6}{sum(SURVIVED.values()):>9}")
    if out := os.environ.get('FAULTS_CSV'): Path(out).write_text('\n'.join(['command,fault,tried,survived', *(l if l.count(',') == 3 else '"{}",{},{},{}'.format(*l.rsplit(',', 3)) for l in lines)]) + '\n')
