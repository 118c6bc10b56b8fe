"The text for faiss does what was measured: the same recall as the tuner's own search, on the same queries."
import json, os, subprocess, sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made import material

from dacl_dr.tuning import Aim, Bench, Way
from dacl_dr.tuning.choosing import Contender
from dacl_dr.tuning.outcome import row_of
from dacl_dr.tuning.tuner import pastes_of

WAYS = {
    'plain': {}, 'prefix': {'axes': 'prefix', 'dims': 12, 'rerank': 40},
    'pca': {'axes': 'pca', 'dims': 12, 'rerank': 40},
    'pca alone': {'axes': 'pca', 'dims': 16}, 'rabitq': {'storage': 'rabitq', 'rerank': 60},
    'pca rabitq': {'axes': 'pca', 'dims': 16, 'storage': 'rabitq', 'rerank': 100},
    'seeds': {'seeds': 'run', 'n_seeds': 2},
    'seeds pca': {'seeds': 'run', 'n_seeds': 2, 'axes': 'pca', 'dims': 12, 'rerank': 40},
}

DRIVER = '''
import inspect, json, sys
faiss.omp_set_num_threads(1)
data = np.load(sys.argv[1])
index = build(data['passages'])
given = {'seeds': data['seeds'], 'passages': data['passages']}
ids = search(index, data['q'], *(given[name] for name in list(inspect.signature(search).parameters)[2:]))
print(json.dumps(ids.tolist()))
'''

@pytest.fixture(scope='module')
def bench(): return Bench(material(), Aim(metric='ann recall', keep=.9))

@pytest.mark.parametrize('name', WAYS)
def test_the_text_for_faiss_finds_what_was_measured(name, bench, tmp_path):
    way, rows = Way(m=8, ef_construction=40, **WAYS[name]), bench.report.rows
    t, knob = bench.trial(way), 60
    row = row_of(bench, Contender(name=name, label=name, trial=t), None, np.ones((1, len(rows))))
    row.knob = knob
    text = next(p.text for p in pastes_of(bench, row) if p.engine == 'faiss')
    (tmp_path/'run.py').write_text(text + DRIVER)
    m = bench.m
    np.savez(
        tmp_path/'data.npz', passages=m.passages, q=m.q[rows], seeds=m.lexical['run'].rows[rows, :2].astype(np.int32))
    argv = [sys.executable, '-I', str(tmp_path/'run.py'), str(tmp_path/'data.npz')]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | {'OMP_NUM_THREADS': '1'}, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs, ours = np.array(json.loads(done.stdout.splitlines()[-1])), bench.runner(way).find(rows, knob).ids
    recall = [bench.report.judge(ids)['ann recall'].mean() for ids in (theirs, ours)]
    assert recall[0] == pytest.approx(recall[1], abs=.015), recall
    assert np.mean([np.isin(a, b).mean() for a, b in zip(theirs, ours)]) > .97
