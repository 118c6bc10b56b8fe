"""Do the tests notice changes that nobody chose? Operators of cosmic-ray, in the packages that the project is for.

    pip install cosmic-ray==8.7.0
    python tests/mutants_generated.py [--only MODULE ...] [--each 6]

Of each module, --each places are drawn with a fixed seed, and at each one of the changes that cosmic-ray knows there:
of an operator, a comparison, a number, a condition, a constant or a loop. The module's notebook and the test files that
import it are run on a copy until one fails. The rows of a module are replaced in
nbs/experiments/results/mutants-generated.csv as soon as it is done; a survivor stands there without a check.
"""
import argparse, csv, json, random, re, shutil, sys, tempfile, time
from datetime import date
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from mutants import COPIED, PATIENCE, ROOT, notebook_file, run, source_file

RESULT = ROOT/'nbs/experiments/results/mutants-generated.csv'
PACKAGES = ('losses', 'curriculum', 'hnsw', 'representation', 'metrics', 'training', 'evaluation', 'encoders')
LEFT_OUT = ('Variable', 'RemoveDecorator', 'NoOp', 'ExceptionReplacer') # need arguments, or change no result
# of the twelve binary operators each for each only those that a slip of the pen could make
BINARY = {
    'Add_Sub', 'Sub_Add', 'Mul_Div', 'Div_Mul', 'FloorDiv_Div', 'Mod_Mul', 'Pow_Mul', 'BitOr_BitAnd', 'BitAnd_BitOr'}
CELL = re.compile(r'^# %% .*\.ipynb #(\w+)$', re.M)


class Change(NamedTuple):
    "One place of a module, changed."
    line: int # from 1
    was: str # the line
    now: str
    source: str # the changed module


def is_tried(name):
    "Is an operator of cosmic-ray among those that are applied?"
    if any(part in name for part in LEFT_OUT): return False
    return 'BinaryOperator' not in name or name.split('Operator_')[-1] in BINARY


def in_annotation(node):
    "Does a node stand in an annotation, where nothing is computed?"
    while node.parent is not None:
        if node.parent.type in ('annassign', 'tfpdef') and node.parent.children[0] is not node: return True
        if node.parent.type == 'param' and node.parent.annotation is node: return True
        if node.parent.type == 'funcdef' and getattr(node.parent, 'annotation', None) is node: return True
        node = node.parent
    return False


def places(source):
    "Place → the operators that change it, and which occurrence it is of each."
    found, nodes = {}, list(ast_nodes(get_ast(source)))
    for name in filter(is_tried, operator_names()):
        operator, n = get_operator(name)(), 0
        for node in nodes:
            for at in operator.mutation_positions(node):
                if not in_annotation(node): found.setdefault(at, []).append((name, n))
                n += 1
    return found


def changes(module, each):
    "So many changes of a module, each at another place of an exported cell."
    source = source_file(ROOT, module).read_text()
    rng, at, drawn = random.Random(module), places(source), []
    for place in rng.sample(sorted(at), len(at)):
        name, occurrence = rng.choice(at[place])
        changed = mutate_code(source, get_operator(name)(), occurrence)
        old, new = source.splitlines(), changed.splitlines()
        differ = [i for i, (a, b) in enumerate(zip(old, new)) if a != b]
        if len(old) != len(new) or len(differ) != 1: continue
        line, = differ
        if old[line].lstrip().startswith(('from ', 'import ', '@')): continue
        drawn.append(Change(line + 1, old[line].strip(), new[line].strip(), changed))
        if len(drawn) == each: break
    return drawn


def cells_of(source):
    "Cell → its code in a module."
    parts = CELL.split(source)
    return dict(zip(parts[1::2], (p.strip() for p in parts[2::2])))


def changed_notebook(module, source):
    "The module's notebook with the same change."
    nb, old = json.loads(notebook_file(ROOT, module).read_text()), cells_of(source_file(ROOT, module).read_text())
    new = cells_of(source)
    for cell in nb['cells']:
        name = cell['id']
        if name in old and old[name] != new[name]:
            head, code = ''.join(cell['source']).split('\n', 1)
            assert code.strip() == old[name], f'{module}: cell {name} is not as it was exported'
            cell['source'] = f'{head}\n{new[name]}'
    return json.dumps(nb)


def checks_of(module):
    "The notebook of a module, and the test files that import it, the smaller first."
    package, name = module.rsplit('.', 1)
    imported = re.compile(rf'dacl_dr\.{package}\.{name}\b|dacl_dr\.{package} import .*\b{name}\b')
    files = [f for f in (ROOT/'tests').rglob('test_*.py') if imported.search(f.read_text())]
    near = lambda f: (f.parent.name != package, f.stat().st_size)
    return [module.replace('.', '/'), *(str(f.relative_to(ROOT/'tests')) for f in sorted(files, key=near))]


def try_module(module, each, world, tmp):
    "Rows of a module's changes; without one the checks that are asked have to pass."
    files, checks, limits, rows = (source_file(world, module), notebook_file(world, module)), checks_of(module), {}, []
    whole = [f.read_text() for f in files]
    def put(texts):
        for f, text in zip(files, texts): f.write_text(text)

    def limit_of(check):
        "The seconds that a check may take: some times what it takes without a change."
        if check not in limits:
            put(whole)
            start = time.monotonic()
            wrong = run(check, world, tmp/'numba')
            if wrong: sys.exit(f'{wrong} fails without any change; mend it first')
            limits[check] = max(60, PATIENCE * (time.monotonic() - start))
        return limits[check]

    for i, change in enumerate(changes(module, each)):
        cache = tmp/f'numba-{module}-{i}' if 'njit' in change.source else tmp/'numba'
        for check in checks:
            limit = limit_of(check)
            put((change.source, changed_notebook(module, change.source)))
            if caught := run(check, world, cache, limit): break
        rows.append({
            'module': module, 'line': change.line, 'was': change.was, 'now': change.now, 'caught by': caught or '',
            'date': date.today().isoformat()})
        print(f'{module}:{change.line}: {change.now}: {caught or "SURVIVED"}', flush=True)
    put(whole)
    return rows


def write_rows(rows):
    "Put a module's rows in the place of its old ones."
    old = list(csv.DictReader(RESULT.open(newline='', encoding='utf-8'))) if RESULT.exists() else []
    kept = [r for r in old if r['module'] != rows[0]['module']]
    with open(RESULT, 'w', newline='', encoding='utf-8') as f:
        out = csv.DictWriter(f, rows[0], lineterminator='\n')
        out.writeheader()
        out.writerows(sorted(kept + rows, key=lambda r: (r['module'], int(r['line']))))


def modules():
    "The modules of the packages, but for their fronts."
    files = [f for p in PACKAGES for f in sorted((ROOT/'dacl_dr'/p).glob('*.py')) if f.stem != '__init__']
    return [f'{f.parent.name}.{f.stem}' for f in files]


def main():
    parser = argparse.ArgumentParser(description='Do the tests notice changes that nobody chose?')
    parser.add_argument('--only', nargs='+', choices=modules(), default=modules(), metavar='MODULE')
    parser.add_argument('--each', type=int, default=6, help='changes of a module')
    args, survived, n = parser.parse_args(), 0, 0
    with tempfile.TemporaryDirectory() as tmp:
        world = Path(tmp)/'world'
        world.mkdir()
        for name in COPIED: (shutil.copytree if (ROOT/name).is_dir() else shutil.copy)(ROOT/name, world/name)
        for module in args.only:
            rows = try_module(module, args.each, world, Path(tmp))
            if rows: write_rows(rows)
            n, survived = n + len(rows), survived + sum(not r['caught by'] for r in rows)
    print(f'{n - survived} of {n} changes noticed')


if __name__ == '__main__': main()
