"""What all benchmarks beside a peer share: work in turns, processes of their own, and one table of ratios.

A measurement is a function that does the work once. `in_turns` calls ours and the peers' one after the other, round
for round, so that what else the machine does falls on all of them alike. Rows of the table say what was done, the
medians, and the ratio of each round to ours as median, smallest and largest: above 1, ours is better.
"""
import json, os, platform, shlex, subprocess, sys, time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median

import pandas as pd

from dacl_dr.cli.main import Terminated, orderly_end
from dacl_dr.core.errors import DaclError
from dacl_dr.core.files import atomic_file, clear_left_behind, make_folder

COLUMNS = ['part', 'case', 'unit', 'way', 'median', 'least', 'most', 'ratio', 'ratio least', 'ratio most', 'rounds']
OURS = 'this project'


def in_order(work):
    "Work that Ctrl-C or SIGTERM may stop: its exit code, after a line that says what stopped it."
    try:
        with orderly_end(): work()
        return 0
    except DaclError as e: line, code = str(e), 2
    except KeyboardInterrupt as e:
        line = 'interrupted; the same command goes on from what is kept'
        code = 143 if isinstance(e, Terminated) else 130
    print(f'dacl: {line}', file=sys.stderr)
    return code


def timed(work):
    "Seconds that a function takes."
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(ways, rounds, measure=timed):
    "Way → a number a round; every other round the order is turned round."
    found = {name: [] for name in ways}
    for i in range(rounds):
        for name in list(ways)[::-1 if i % 2 else 1]: found[name].append(measure(ways[name]))
    return found


def rows_of(part, case, unit, found, bigger_is_better=False):
    "Table rows of one case: each way's numbers, and its ratio to ours, above 1 where ours is better."
    rows, ours = [], found[OURS]
    for way, values in found.items():
        ratios = [b / a if not bigger_is_better else a / b for a, b in zip(ours, values)]
        spread = (median(ratios), min(ratios), max(ratios)) if way != OURS else (1., 1., 1.)
        rows.append(dict(zip(COLUMNS, (
            part, case, unit, way, median(values), min(values), max(values), *spread, len(values)))))
    return pd.DataFrame(rows, columns=COLUMNS)


def show(rows):
    "Print rows for people."
    print(rows.drop(columns=['part', 'rounds']).round(3).to_string(index=False), flush=True)


def processor():
    "The name of the processor."
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()


def short(word):
    "A path of this machine by its last two names; other words as they are."
    return '/'.join(Path(word).parts[-2:]) if Path(word).is_absolute() else str(word)


def put_into(table, name, rows):
    "Put rows in place of those that a table has of this name."
    path = Path(table)
    clear_left_behind(make_folder(path.parent), f'{path.name}.')
    kept = [pd.read_csv(path).query('name != @name')] if path.exists() else []
    with atomic_file(path) as tmp: pd.concat([*kept, rows]).to_csv(tmp, index=False, float_format='%.5g')


def save(table, rows, packages=()):
    "Put rows in place of the table's own of these parts; beside it, what they were measured with."
    path = Path(table)
    kept = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
    parts = set(rows.part)
    whole = pd.concat([kept[~kept.part.isin(parts)], rows]) if len(kept) else rows
    with atomic_file(path) as tmp: whole.to_csv(tmp, index=False, float_format='%.5g')
    about = path.with_suffix('.json')
    facts = json.loads(about.read_text()) if about.exists() else {}
    mine = {
        'date': date.today().isoformat(),
        'command': shlex.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *map(short, sys.argv[1:])]),
        'processor': processor(),
        'cores': os.cpu_count(),
        'python': platform.python_version(),
        'versions': {name: version(name) for name in sorted(packages)},
    }
    facts |= {p: mine for p in sorted(parts)}
    with atomic_file(about) as tmp: tmp.write_text(json.dumps(facts, indent=1) + '\n')


def apart(script, arguments):
    "What a script prints as JSON in its last line, run in a process of its own."
    done = subprocess.run([sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak_bytes():
    "The most memory that this process has held."
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines() if ':' in line)
    return int(status['VmHWM'].split()[0]) * 1024


def matmul_limit(n, m, rounds=5):
    "FLOP/s of a linear layer alone, the median of some rounds."
    import torch
    x, w = torch.randn(2048, n), torch.randn(m, n)
    if torch.cuda.is_available(): x, w = x.cuda(), w.cuda()
    def twenty():
        for _ in range(20): torch.nn.functional.linear(x, w)
        if torch.cuda.is_available(): torch.cuda.synchronize()
    with torch.no_grad(): seconds = median(timed(twenty) for _ in range(rounds + 1))
    return 20 * 2 * 2048 * n * m / seconds
