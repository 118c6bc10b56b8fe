"Small data of tunings: clumps, whose queries lie between them, and what else a tuning may be given."
import json
from pathlib import Path

import faiss, numpy as np

from dacl_dr.cli.main import main
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.search.exact import exact_search
from dacl_dr.tuning import Lexical, Material


def unit(x): return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype('f4')

def clumps(n=2000, queries=200, dim=24, seed=0):
    "Passages in clumps, queries near some of them, and two relevant passages of each: its second and seventh nearest."
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n // 50, dim))
    passages = unit(np.repeat(centres, 50, 0) + .5 * rng.normal(size=(n, dim)))
    q = unit(centres[rng.integers(0, n // 50, queries)] + .6 * rng.normal(size=(queries, dim)))
    return passages, q, exact_search(q, passages, 10)

def material(**more):
    "The same as a `Material`, with a lexical search that knows two of the ten nearest."
    passages, q, near = clumps()
    judged = Judgements([{int(a): 1, int(b): 1} for a, b in near[:, [1, 6]]])
    return Material(
        **{'passages': passages, 'q': q, 'judged': judged, 'lexical': {'run': Lexical(near[:, 3:5])}} | more)

def write(folder, labels=None):
    "Files of the data: vectors, an index by plain faiss (with labels, if given), judgements, training queries, a run."
    folder = Path(folder)
    passages, q, near = clumps()
    np.save(folder/'passages.npy', passages)
    np.save(folder/'q.npy', q)
    np.save(folder/'qrels.npy', near[:, [1, 6]])
    np.save(folder/'train.npy', clumps(seed=0)[1][::-1] + np.float32(.01))
    index = faiss.IndexHNSWFlat(24, 8, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 40
    names = np.arange(2000) if labels is None else labels
    if labels is None: index.add(passages)
    else:
        index = faiss.IndexIDMap(index)
        index.add_with_ids(passages, names)
    faiss.write_index(index, str(folder/'mine.faiss'))
    rows = [(i, names[p]) for i, found in enumerate(near[:, [1, 6]]) for p in found]
    (folder/'qrels.txt').write_text(''.join(f'{i} 0 {p} 1\n' for i, p in rows))
    (folder/'bm25.run').write_text(''.join(
        f'{i} Q0 {names[p]} {n} {10 - n} x\n' for i, found in enumerate(near[:, 3:5]) for n, p in enumerate(found, 1)))

def flags(folder, *names):
    "Flags of files in a folder."
    files = {'vectors': 'passages.npy', 'index': 'mine.faiss', 'query_vectors': 'q.npy', 'qrels': 'qrels.npy',
             'run': 'bm25.run', 'train_queries': 'train.npy'}
    return [word for name in names for word in (f'--{name}', str(Path(folder)/files[name]))]

def tune(folder, *words, out='out', rounds=0):
    "Call the program: exit code."
    return main(['tune', *map(str, words), '--output', str(Path(folder)/out), '--rounds', str(rounds)])

def tuned(folder, out='out'): return json.loads((Path(folder)/out/'tuned.json').read_text())

def of(found): return {row['name']: row for row in found['rows']}
