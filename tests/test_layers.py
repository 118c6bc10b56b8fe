"The structure: data flows one way, no development package at run time."
import ast, collections, importlib, json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest, yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, NBS = ROOT/'dacl_dr', ROOT/'nbs'
PAGES = sorted(p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

# The allowed order of the packages: each imports from those on lower floors only.
FLOORS = (
    ('core', 'losses'),
    ('data', 'metrics', 'report', 'encoders'),
    ('search',),
    ('representation', 'curriculum'),
    ('hnsw',),
    ('training',),
    ('evaluation',),
    ('studies', 'tuning', 'adapting'),
    ('integrations',),
    ('cli',),
)
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
MODULES = sorted(
    '.'.join(p.relative_to(PACKAGE).with_suffix('').parts)
    for p in PACKAGE.rglob('*.py') if p.parent != PACKAGE and p.stem != '__init__'
)


def imports(module):
    "Modules of this package that a generated module imports, anywhere in it."
    path = PACKAGE/(module.replace('.', '/') + '.py')
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level: continue
        yield '.'.join([*module.split('.')[:-node.level], *(node.module or '').split('.')])


def reading_order():
    "The modules as the sidebar has them."
    contents = yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents']
    reference = next(s for s in contents if s.get('section') == 'Reference')
    pages = [p for s in reference['contents'] for p in s['contents']]
    return [p.removesuffix('.ipynb').replace('/', '.') for p in pages if isinstance(p, str)]


@pytest.mark.parametrize('module', MODULES)
def test_a_package_imports_only_from_lower_floors(module):
    package = module.split('.')[0]
    for other in imports(module):
        below = other.split('.')[0]
        if other == '': continue # the version
        assert below == package or FLOOR[below] < FLOOR[package], f'{module} imports {other}'


def test_each_module_stands_after_all_that_it_imports():
    """The sidebar has every module, and read from its top nothing is used before it was explained; so there is no
    circle."""
    order = reading_order()
    assert sorted(order) == MODULES
    place = {m: i for i, m in enumerate(order)}
    early = [(m, o) for m in order for o in imports(m) if o in place and place[o] > place[m]]
    assert early == []


def test_notebooks_and_modules_are_one_tree():
    named = {}
    for path in PAGES:
        exported = re.findall(r'"#\| default_exp ([\w.]+)', path.read_text())
        if exported: named[path.relative_to(NBS).with_suffix('').as_posix()] = exported[0].replace('.', '/')
    assert {a: b for a, b in named.items() if a != b.replace('/__init__', '/index')} == {}
    modules = {
        p.relative_to(PACKAGE).with_suffix('').as_posix() for p in PACKAGE.rglob('*.py')} - {'__init__', '_modidx'}
    assert modules == set(named.values())


def public_names(module):
    tree = ast.parse((PACKAGE/(module.replace('.', '/') + '.py')).read_text())
    return next(
        (
            ast.literal_eval(n.value) for n in tree.body
            if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '__all__'),
        [])


def test_a_public_name_exists_once():
    where = collections.defaultdict(list)
    for m in MODULES:
        for name in public_names(m): where[name].append(m)
    assert {n: ms for n, ms in where.items() if len(ms) > 1} == {}


LONGEST = 120 # columns

@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(NBS).with_suffix('')))
def test_no_line_of_code_is_too_long(path):
    cells = [c for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']
    lines = [l for c in cells for l in ''.join(c['source']).split('\n')]
    assert [l for l in lines if len(l) > LONGEST] == []

SCRIPTS = [f for folder in ('benchmarks', 'tests') for f in sorted((ROOT/folder).rglob('*.py'))]

@pytest.mark.parametrize('path', SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_line_of_a_benchmark_or_a_test_is_too_long(path):
    assert [l for l in path.read_text().splitlines() if len(l) > LONGEST] == []


LONGEST_CELL, LONGEST_MODULE = 60, 450 # lines

def test_cells_and_modules_are_short():
    sources = {
        (p, c['id']): ''.join(c['source']) for p in PAGES for c in json.loads(p.read_text())['cells']
        if c['cell_type'] == 'code'}
    exported = {where: len(s.splitlines()) - 1 for where, s in sources.items() if s.startswith('#| export')}
    assert {f'{p.relative_to(NBS)} {cell}': n for (p, cell), n in exported.items() if n > LONGEST_CELL} == {}
    modules = {p: len(p.read_text().splitlines()) for p in PACKAGE.rglob('*.py') if p.name != '_modidx.py'}
    assert {str(p): n for p, n in modules.items() if n > LONGEST_MODULE} == {}


@pytest.mark.parametrize('module', MODULES)
def test_no_function_takes_too_much(module):
    "Above eight parameters a struct is due."
    tree = ast.parse((PACKAGE/(module.replace('.', '/') + '.py')).read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    taken = {
        f.name: len([a for a in f.args.args + f.args.kwonlyargs if a.arg not in ('self', 'cls')]) for f in functions}
    assert {n: k for n, k in taken.items() if k > 8} == {}


@pytest.mark.parametrize('package', FLOOR)
def test_a_front_offers_what_its_modules_have(package):
    front = importlib.import_module(f'dacl_dr.{package}')
    modules = {m.split('.')[1] for m in MODULES if m.startswith(f'{package}.')}
    assert front.__all__ and not modules & set(front.__all__), 'a function that is named as its module is hidden by it'
    for name in front.__all__:
        assert getattr(getattr(front, name), '__module__', f'dacl_dr.{package}.').startswith(f'dacl_dr.{package}.')


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(ROOT/'nbs').with_suffix('')))
def test_notebook_is_fit_to_read(path):
    cells = json.loads(path.read_text())['cells']
    needed = 'a chart that fetches its library: import dacl_dr.report.charts for its look'
    assert 'https://cdn' not in path.read_text(), needed
    first = ''.join(cells[0]['source'])
    assert re.match(r'# .+\n\n> .+', first)
    outputs = [o for c in cells for o in c.get('outputs', [])]
    assert not [o for o in outputs if o['output_type'] == 'error' or o.get('name') == 'stderr']
    assert str(ROOT) not in json.dumps(outputs)


def test_runs_without_development_packages():
    "Every module imports while nbdev, fastcore, execnb, ghapi, pytest and mteb, an extra, are out of reach."
    code = ('import sys, importlib\n'
            'for m in ("nbdev", "fastcore", "execnb", "ghapi", "pytest", "mteb"): sys.modules[m] = None\n'
            f'for m in {MODULES}: importlib.import_module("dacl_dr." + m)\n')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_development_packages_are_no_requirement():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini')
    names = {re.split(r'[<>=!]', r)[0].lower() for r in cfg['DEFAULT']['requirements'].split()}
    assert not names & {'nbdev', 'fastcore', 'execnb', 'ghapi', 'pytest'}
    assert 'torch' in names


def test_help_needs_no_heavy_library():
    code = (
        'import sys, dacl_dr.cli.main\nheavy = {"torch", "transformers", "faiss", "pandas", "numpy", "altair"} & '
        'set(sys.modules)\nassert not heavy, heavy')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


@pytest.mark.parametrize('command', ['diagnose', 'tune', 'adapt'])
def test_bad_vectors_are_refused_before_heavy_libraries(command, tmp_path):
    (tmp_path/'bad.npy').write_bytes(b'not vectors')
    code = (
        'import sys\nfrom dacl_dr.cli.main import main\n'
        f'assert main(["{command}", "--vectors", "bad.npy", "--output", "out"]) == 2\n'
        'heavy = {"torch", "transformers", "faiss", "numba", "altair"} & set(sys.modules)\nassert not heavy, heavy')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and 'bad.npy: is no whole .npy file' in done.stderr, done.stderr


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(ROOT/'nbs').with_suffix('')))
def test_imports_stand_in_their_own_cells(path):
    "nbdev executes every cell with an import when it makes the docs, so such a cell must need nothing else."
    for cell in json.loads(path.read_text())['cells']:
        if cell['cell_type'] != 'code' or 'eval: false' in ''.join(cell['source']): continue
        found = [
            isinstance(n, (ast.Import, ast.ImportFrom))
            for n in ast.parse(''.join(l for l in cell['source'] if not l.startswith(('%', '!')))).body]
        assert all(found) or not any(found), ''.join(cell['source'])
        nested = [
            n for s in ast.parse(''.join(cell['source'])).body
            if not isinstance(s, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)) for n in ast.walk(s)
            if isinstance(n, (ast.Import, ast.ImportFrom))]
        assert not nested, ''.join(cell['source'])


@pytest.mark.parametrize('path', sorted((PACKAGE.parent/'benchmarks').glob('*.py')), ids=lambda p: p.stem)
def test_benchmarks_name_what_is_there(path):
    "They are run by hand, and nothing else would tell."
    imports = [
        n for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.ImportFrom) and n.module.startswith('dacl_dr')]
    missing = [
        f'{n.module}.{a.name}' for n in imports for a in n.names
        if not hasattr(importlib.import_module(n.module), a.name)]
    assert missing == []
