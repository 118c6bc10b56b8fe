"What a diagnosis says that `dacl tune` would try is what tuning has found to save on published data."
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np, pytest

from dacl_dr.evaluation.advice import THRESHOLDS, Evidence, worth_trying

RESULTS = Path(__file__).resolve().parents[2]/'nbs'/'experiments'/'results'
TUNED, MEASURED = RESULTS/'tune.csv', RESULTS/'tune-measures.csv'


def table(path):
    with open(path, newline='') as f: return list(csv.DictReader(f))

def name_of(row): return row.get('dataset') or row['name']

def advised(row):
    "The levers that are named for a data set, from its measures."
    facts = {n: float(v) for n, v in row.items() if n not in ('name', 'passages', 'dim', 'texts')}
    e = Evidence(
        facts, np.array([10, 100]), np.array([.8, .97]), int(row['dim']), int(row['passages']), row['texts'] == 'yes')
    return worth_trying(e)

def below(row): return bool(row['change high']) and float(row['change high']) < 0

def found_to_save(rows):
    """Levers that saved over all seeds, or in most; fewer dimensions are told by bytes in each seed, all others by
    distances."""
    one, read = defaultdict(list), defaultdict(dict)
    for r in rows:
        if r['seed'] != 'all' and r['way'] not in ('have', 'plain'): one[r['way']].append(below(r))
        if r['MB read']: read[r['seed']][r['way']] = float(r['MB read'])
    seeds = {r['seed'] for r in rows} - {'all'}
    found = {r['way'] for r in rows if r['seed'] == 'all' and below(r)}
    found |= {way for way, saved in one.items() if sum(saved) > len(seeds) / 2}
    fewer = [of['dims'] < of['plain'] for of in read.values() if 'dims' in of]
    return found | ({'dims'} if fewer and all(fewer) else set())


def test_measures_of_published_data_name_levers():
    for row in table(MEASURED):
        assert {'stop', 'bm25'} <= set(advised(row)), row['name']

def test_levers_that_are_named_have_saved_on_published_data():
    of = defaultdict(list)
    for row in table(TUNED): of[name_of(row)].append(row)
    known = {row['name']: row for row in table(MEASURED)}
    assert set(of) & set(known), 'the tables name no data set in common'
    for name in set(of) & set(known):
        lacking = set(advised(known[name])) - found_to_save(of[name])
        assert not lacking, f'{name}: the advice names {lacking}, which did not save'


BASE = {
    'mahalanobis': 1., 'mahalanobis of held-out passages': 1., 'centroid gap': .1, 'mean cosine': .05,
    'kept at a quarter of the axes': .5,
}

def named(recall=(.8, .97), texts=False, m=32, n=2000, **facts):
    facts = BASE | {k.replace('_', ' '): v for k, v in facts.items()}
    return [*worth_trying(Evidence(facts, np.array([10, 20]), np.array(recall), 24, n, texts, m))]

def test_each_lever_is_named_at_its_threshold_alone():
    assert named() == ['stop'] and named(texts=True) == ['stop', 'bm25']
    assert named(centroid_gap=.6) == named(mahalanobis=1.6) == ['stop', 'links'] and named(centroid_gap=.45) == ['stop']
    least = THRESHOLDS['kept at a quarter of the axes']
    quarter = lambda kept, n=2000: named(n=n, kept_at_a_quarter_of_the_axes=kept)
    assert quarter(least + .01) == ['stop', 'dims'] and quarter(least) == quarter(.99, n=20) == ['stop']
    assert named(m=15) == named(recall=(.5, .94)) == ['stop', 'm'] and named(m=16) == ['stop']
