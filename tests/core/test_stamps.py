"A stamp of code changes with what the code does, and with nothing else."
import ast, re, shutil
from pathlib import Path

import pytest

import dacl_dr
from dacl_dr.core import stamps

SEARCH, TRAIN = 'studies.measures.search_step', 'studies.steps.train_step'


@pytest.fixture
def package(tmp_path, monkeypatch):
    "A copy of the package, which is what stamps are taken of."
    copy = tmp_path/'dacl_dr'
    shutil.copytree(Path(dacl_dr.__file__).parent, copy, ignore=shutil.ignore_patterns('__pycache__'))
    monkeypatch.setattr(stamps, 'files', lambda name: tmp_path/name)
    forget()
    yield copy
    forget()


@pytest.fixture(scope='module')
def before():
    "Stamps of the package as it is."
    return stamps_of(SEARCH, TRAIN)


def forget():
    stamps.source_of.cache_clear()
    stamps.code_stamp.cache_clear()


def stamps_of(*names):
    forget()
    return [stamps.code_stamp(n) for n in names]


def edit(path, was, now):
    "Change one place of a file."
    text = path.read_text()
    assert text.count(was) == 1, was
    path.write_text(text.replace(was, now))


def definition(path, name):
    "The text of a function."
    text = path.read_text()
    node = next(n for n in ast.parse(text).body if getattr(n, 'name', None) == name)
    return ast.get_source_segment(text, node)


def move(package, name, source, target):
    "Move a function to a new module, with the imports it needs; its old module imports it."
    path = package/f'{source}.py'
    text, moved = path.read_text(), definition(path, name)
    imports = re.findall(r'^(?:import|from) [^(\n]+$', text, flags=re.M)
    siblings = [
        n for n in stamps.source_of(source.replace('/', '.')).defined if n != name and re.search(rf'\b{n}\b', moved)]
    if siblings: imports.append(f"from .{path.stem} import {', '.join(siblings)}")
    path.with_name(f'{target}.py').write_text('\n'.join([*imports, moved, '']))
    path.write_text(text.replace(moved, f'from .{target} import {name}'))


def rewritten(package, change):
    "Every module changed; how many there are in which it made a difference."
    n = 0
    for path in package.rglob('*.py'):
        text = path.read_text()
        path.write_text(change(text))
        n += path.read_text() != text
    return n


def test_comments_change_nothing(package, before):
    def change(text):
        lines = [f'{l} # a remark' if re.match(r' +return\b.*[\w)\]]$', l) else l for l in text.splitlines()]
        return '\n'.join([*lines, '# the end', ''])
    assert rewritten(package, change) > 50 and stamps_of(SEARCH, TRAIN) == before


def test_docstrings_change_nothing(package, before):
    change = lambda text: re.sub(r'^( +"[A-Z][^"\n]*)"$', r'\1 In other words."', text, flags=re.M)
    assert rewritten(package, change) > 50 and stamps_of(SEARCH, TRAIN) == before


def test_line_breaks_change_nothing(package, before):
    "Each statement on one line, and more blank lines between."
    change = lambda text: ast.unparse(ast.parse(text)).replace('\n\n', '\n\n\n')
    assert rewritten(package, change) > 50 and stamps_of(SEARCH, TRAIN) == before


@pytest.mark.parametrize('name, source', [
    ('ann_recall', 'metrics/ranking'),
    ('cached_backward', 'losses/gradcache'),
    ('infonce_loss', 'losses/infonce'),
])
def test_the_place_of_a_definition_changes_nothing(package, before, name, source):
    move(package, name, source, 'elsewhere')
    assert stamps_of(SEARCH, TRAIN) == before
    assert name in stamps.source_of(source.replace('/', '.')).imported


def test_the_order_of_definitions_changes_nothing(package, before):
    path = package/'metrics/ranking.py'
    moved = definition(path, 'ann_recall')
    path.write_text(path.read_text().replace(moved, '') + '\n' + moved + '\n')
    assert stamps_of(SEARCH, TRAIN) == before


def test_an_operator_in_what_a_search_uses(package, before):
    "`ann_recall` judges a sweep; a training does without it."
    edit(
        package/'metrics/ranking.py', '(found[:, :, None] == exact[:, None, :k])',
        '(found[:, :, None] >= exact[:, None, :k])')
    after = stamps_of(SEARCH, TRAIN)
    assert after[0] != before[0] and after[1] == before[1]


def test_an_operator_in_what_a_training_uses(package, before):
    "`cached_backward` is reached through the trainer; a search does without it."
    edit(package/'losses/gradcache.py', 'backward(losses)\n', 'backward(-losses)\n')
    after = stamps_of(SEARCH, TRAIN)
    assert after[0] == before[0] and after[1] != before[1]


def test_what_is_registered_counts(package):
    "A statement without a name, and what it uses, belongs to the definition that it speaks of."
    before = stamps_of('core.yaml.parse_yaml')
    edit(package/'core/yaml.py', r'(\.\d*)?[eE]', r'[eE]')
    assert stamps_of('core.yaml.parse_yaml') != before


def test_a_name_that_is_not_there(package):
    for name in ('studies.steps.no_such', 'losses.distance.no_such'):
        with pytest.raises(LookupError, match=f'{name} is not defined'): stamps.code_stamp(name)
