"""Cross-fitting: each question a test question once, its parts put together as one study; named recipes; orders of
insertion."""
import faiss, numpy as np
import pytest

from dacl_dr.core.settings import NamedRecipe, ScaleSettings
from dacl_dr.encoders.static import load_encoder
from dacl_dr.hnsw.cost import cost_over
from dacl_dr.studies.models import variants
from dacl_dr.studies.run import run_recipes, tiny_settings
from dacl_dr.studies.tables import read_tables, sweeps_of
from dacl_dr.studies.task import Task, group_of

FOLDS = 3


@pytest.fixture(scope='module')
def crossed(tmp_path_factory, tiny_run):
    "A cross-fitted run of two models, with its data and settings."
    s = tiny_settings()
    s = s.but(
        recipes=('A',), scale=ScaleSettings(folds=FOLDS), insertion='random', seeds=(0, 1),
        named_recipes={'narrow': NamedRecipe(recipe='A', prefix=32)},
        search=s.search.but(ef_values=(10, 12, 16, 24, 32, 64, 128)))
    run = run_recipes(s, tiny_run[0]/'codedocs', tmp_path_factory.mktemp('crossed')/'run', lambda m: None)
    return run, Task(tiny_run[0]/'codedocs', s), s


def test_each_question_is_asked_once_by_a_model_that_has_not_seen_its_file(crossed):
    _, task, s = crossed
    parts = [task.part(f) for f in range(FOLDS)]
    assert parts[0] is task and task.part(2) is parts[2]
    asked = [q.question for p in parts for q in p.test.questions]
    assert len(set(asked)) == len(asked) == len(task.train.questions) + len(task.test.questions)
    for p in parts:
        assert not {group_of(q) for q in p.train.questions} & {group_of(q) for q in p.test.questions}
        assert p.dev.questions == task.dev.questions


def test_its_tables_are_those_of_all_questions(crossed):
    run, task, s = crossed
    t = read_tables(run)
    sizes = [len(task.part(f).test.questions) for f in range(FOLDS)]
    ranks = t.ranks[(t.ranks.model == 'A') & (t.ranks.seed == 1)]
    assert ranks.question.tolist() == list(range(sum(sizes)))
    rows = t.study.set_index(['metric', 'model'])
    found = t.ranks[t.ranks.model == 'A']
    recalls = [g['rank'].between(1, 10).mean() for _, g in found.groupby('seed')]
    assert rows.loc[('recall@10', 'A'), 'value'] == pytest.approx(np.mean(recalls), abs=1e-6)
    results = t.results[(t.results.model == 'A') & (t.results.metric == 'recall@10')]
    assert results.value.mean() == pytest.approx(np.mean(recalls), abs=1e-6)
    assert set(t.study[t.study.model == 'A'].seeds) == {2} # seeds, not models
    sweeps = sweeps_of(run, s, variants(s))
    assert [len(x) for x in sweeps.values()] == [2, 2]
    assert [len(x.exact['recall@10']) for x in sweeps['A']] == [sum(sizes)] * 2
    assert np.mean([x.exact['recall@10'].mean() for x in sweeps['A']]) == pytest.approx(np.mean(recalls), abs=1e-6)
    own = 'visited at 95% to 99.5% of own exact recall@10'
    values = [
        cost_over(s.search.own_shares, x.exact['recall@10'].mean(), x.mean('recall@10'), x.mean('visited'))
        for x in sweeps['A']]
    assert rows.loc[(own, 'A'), 'value'] == pytest.approx(np.mean(values), rel=1e-6)
    shown = t.sweeps[(t.sweeps.model == 'A') & (t.sweeps.seed == 0)]
    assert shown['recall@10'].tolist() == pytest.approx(sweeps['A'][0].mean('recall@10').tolist())


def test_a_graph_has_an_order_of_its_own_and_a_prefix_is_searched(crossed):
    run, task, s = crossed
    graphs = [faiss.read_index(str(run/f'A-seed0-fold{f}'/'search'/'index.faiss')) for f in range(FOLDS)]
    assert {g.d for g in graphs} == {64}
    assert faiss.read_index(str(run/'narrow-seed0-fold0'/'search'/'index.faiss')).d == 32
    first = [g.reconstruct(0) for g in graphs]
    own = [task.part(f).encode(load_encoder(run/f'A-seed0-fold{f}'/'train'/'encoder'), 'all') for f in range(2)]
    for x, vectors in zip(first, own): assert np.abs(vectors - x).sum(1).argmin() != 0 # not the corpus's first passage

