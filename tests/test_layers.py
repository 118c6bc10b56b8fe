"The structure: data flows one way, no development package at run time."
import ast, json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT/'nbs').glob('[0-9][0-9]_*.ipynb'))
PAGES = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
ORDER = {re.sub(r'^\d\d_', '', n.stem): i for i, n in enumerate(NOTEBOOKS)}


def imports(path):
    "Modules of this package that a generated module imports."
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module: yield node.module


@pytest.mark.parametrize('module', ORDER)
def test_imports_only_from_lower_numbers(module):
    for other in imports(ROOT/'dacl_dr'/f'{module}.py'): assert ORDER[other] < ORDER[module], f'{module} imports {other}'


def test_every_module_has_its_notebook():
    modules = {p.stem for p in (ROOT/'dacl_dr').glob('*.py')} - {'__init__', '_modidx'}
    assert modules == set(ORDER)


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(ROOT/'nbs').with_suffix('')))
def test_notebook_is_fit_to_read(path):
    cells = json.loads(path.read_text())['cells']
    assert 'https://cdn' not in path.read_text(), 'a chart that fetches its library: import dacl_dr.figures for its look'
    assert 'widgets' not in json.loads(path.read_text())['metadata'], 'the state of progress bars'
    first = ''.join(cells[0]['source'])
    assert re.match(r'# .+\n\n> .+', first)
    outputs = [o for c in cells for o in c.get('outputs', [])]
    assert not [o for o in outputs if o['output_type'] == 'error' or o.get('name') == 'stderr']
    assert str(ROOT) not in json.dumps(outputs)


def test_runs_without_development_packages():
    "Every module imports while nbdev, fastcore, execnb, ghapi and pytest are out of reach."
    code = ('import sys, importlib\n'
            'for m in ("nbdev", "fastcore", "execnb", "ghapi", "pytest"): sys.modules[m] = None\n'
            f'for m in {sorted(ORDER)}: importlib.import_module("dacl_dr." + m)\n')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_development_packages_are_no_requirement():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini')
    names = {re.split(r'[<>=!]', r)[0].lower() for r in cfg['DEFAULT']['requirements'].split()}
    assert not names & {'nbdev', 'fastcore', 'execnb', 'ghapi', 'pytest'}
    assert 'torch' in names


def test_help_needs_no_heavy_library():
    code = 'import sys, dacl_dr.cli\nheavy = {"torch", "transformers", "faiss", "pandas", "numpy", "altair"} & set(sys.modules)\nassert not heavy, heavy'
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(ROOT/'nbs').with_suffix('')))
def test_imports_stand_in_their_own_cells(path):
    "nbdev executes every cell with an import when it makes the docs, so such a cell must need nothing else."
    for cell in json.loads(path.read_text())['cells']:
        if cell['cell_type'] != 'code' or 'eval: false' in ''.join(cell['source']): continue
        found = [isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(''.join(l for l in cell['source'] if not l.startswith(('%', '!')))).body]
        assert all(found) or not any(found), ''.join(cell['source'])
        nested = [n for s in ast.parse(''.join(cell['source'])).body if not isinstance(s, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)) for n in ast.walk(s) if isinstance(n, (ast.Import, ast.ImportFrom))]
        assert not nested, ''.join(cell['source'])
