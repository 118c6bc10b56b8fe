"The harvest against a package whose functions are known."
from collections import Counter
from itertools import product

from dacl_dr.data.codedocs import codedocs, drop_repeats, harvest, source_files, pair_passage
from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import CorpusSettings
from dacl_dr.data.folders import split_of
from dacl_dr.data.formats import positive_rows, read_passages, read_questions
from dacl_dr.core.steps import read_manifest

import pytest


def test_files(demo_package):
    assert [f for f, _ in source_files(demo_package)] == [
        'dacl_demo/__init__.py', 'dacl_demo/broken.py', 'dacl_demo/latin.py', 'dacl_demo/other.py',
        'dacl_demo/shapes.py']


def test_pairs(demo_package):
    pairs = {p.name: p for p in harvest(CorpusSettings(packages=(demo_package,))) if p.file == 'dacl_demo/shapes.py'}
    assert {n: p.query for n, p in pairs.items()} == {
        'area': 'Compute the area of a rectangle.', 'Stack.push': 'Put an item on top of the stack',
        'Stack.drain': 'Remove every item from the stack, oldest last.',
        'outer': 'Wrap a function so that calls are counted.',
        'outer.inner': 'Call the wrapped function and count the call.',
        'twin_one': 'Return the very same words.', 'twin_two': 'Return the very same words!',
        'copy': 'First description of copied code.'}
    assert pairs['area'].code == (
        'def area(width, height):\n    # a comment stays in the passage\n    if width < 0 or height < 0:\n'
        '        raise ValueError(width, height)\n    return width * height')
    assert pairs['Stack.push'].code.startswith('def push(self, item):\n    self.items') # dedented
    assert pairs['Stack.drain'].code.startswith('async def drain(self):')
    assert pairs['area'].line == 3


def test_no_docstring_leaks_into_its_passage(demo_package):
    pairs = harvest(CorpusSettings(packages=(demo_package,)))
    assert 'inner.calls += 1' in next(p.code for p in pairs if p.name == 'outer')
    for p, q in product(pairs, pairs):
        if p.file == q.file: assert q.query not in p.code # not its own, and not that of a function inside it
    for p in pairs:
        assert p.query not in p.code


def test_repeats_go_wholly(demo_package):
    kept = {p.name for p in drop_repeats(harvest(CorpusSettings(packages=(demo_package,))))}
    # twins shared a query, copies shared their code
    assert kept == {'area', 'Stack.push', 'Stack.drain', 'outer', 'outer.inner'}


def test_thresholds(demo_package):
    names = lambda **kw: {p.name for p in harvest(CorpusSettings(packages=(demo_package,), **kw))}
    assert 'short' in names(min_body_lines=1) and 'terse' in names(min_query_words=2)
    assert names(min_body_lines=7) == set()


def test_workers_do_not_change_the_result():
    s = CorpusSettings(packages=('ipython', 'jupyter_server')) # enough files to be shared out
    assert harvest(s, workers=1) == harvest(s, workers=2)


def test_data_set_is_whole_and_split_by_file(tmp_path):
    s = CorpusSettings(packages=('traitlets', 'nbformat', 'joblib'))
    folder = codedocs(tmp_path/'codedocs', s, lambda m: None)
    facts = read_manifest(folder)['facts']
    passages = read_passages(folder/'psgs.tsv')
    splits = {n: read_questions(folder/f'codedocs-{n}.json') for n in ('train', 'dev', 'test')}
    assert {n: len(q) for n, q in splits.items()} == {n: facts[n] for n in splits}
    assert sum(map(len, splits.values())) == len(passages) == facts['pairs']
    rows = [r for q in splits.values() for r in positive_rows(q, passages)]
    assert sorted(rows) == list(range(len(passages)))
    files = {n: {c.passage_id.rsplit(':', 1)[0] for x in q for c in x.positive_ctxs} for n, q in splits.items()}
    assert not files['train'] & files['test'] and not files['train'] & files['dev'] and not files['dev'] & files['test']
    assert max(Counter(q.question.lower() for qs in splits.values() for q in qs).values()) == 1


def test_harvest_is_cached_and_deterministic(tmp_path):
    s = CorpusSettings(packages=('nbformat', 'traitlets'))
    said = []
    a = codedocs(tmp_path/'a', s, said.append)
    codedocs(tmp_path/'a', s, said.append)
    assert 'reused' not in said[0] and 'reused' in said[1]
    b = codedocs(tmp_path/'b', s, said.append)
    for f in ('psgs.tsv', 'codedocs-train.json', 'codedocs-dev.json', 'codedocs-test.json'):
        assert (a/f).read_bytes() == (b/f).read_bytes()
    assert read_manifest(a)['made_from']['versions'].keys() == {'nbformat', 'traitlets'}


def test_too_little_is_refused_and_leaves_nothing(demo_package, tmp_path):
    with pytest.raises(DaclError, match='name more packages'):
        codedocs(tmp_path/'codedocs', CorpusSettings(packages=(demo_package,)), lambda m: None)
    assert [f for f in tmp_path.iterdir() if f.suffix != '.lock'] == []


def test_split_is_fixed_by_the_name():
    # fixed for ever: a change would mix train and test of old runs
    assert [split_of(f'pkg/{i}.py', .1, .2) for i in (0, 4, 9)] == ['train', 'test', 'dev']
    assert {split_of(f'x/{i}.py', 0, 0) for i in range(50)} == {'train'}


def test_ids_are_unique(demo_package):
    ids = [pair_passage(p).id for p in harvest(CorpusSettings(packages=(demo_package,)))]
    assert len(set(ids)) == len(ids)
