"Every number that prose gives as a finding stands in a tracked table; what notebooks show follows from tracked tables."
import json, re
from pathlib import Path

import pandas as pd, papermill, pytest

ROOT = Path(__file__).resolve().parents[1]
NBS, RESULTS = ROOT/'nbs', ROOT/'nbs'/'experiments'/'results'
NUMBER = r'(?<![\w.,])[-−+×±]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)'
UNIT = r'%|×|[TGMk]B|ms|GHz|seconds?|s|minutes?|hours?|core hours|points?|times|queries a second|visited|nodes'
# a number with a unit, or after the name of a metric
FOUND = re.compile(
    rf'{NUMBER}[  ]?(?:{UNIT})(?!\w)|×{NUMBER}|(?:recall|mrr|ndcg|success|accuracy)(?:@\d+)?(?: of| is)? {NUMBER}', re.I
)
PROSE = sorted(
    p for p in [*NBS.rglob('*.ipynb'), *NBS.rglob('*.md'), *NBS.rglob('*.qmd')] if '.ipynb_checkpoints' not in p.parts)


def name_of(path): return str(path.relative_to(NBS).with_suffix(''))

def prose(path):
    "The text of a page, without code."
    text = path.read_text() if path.suffix != '.ipynb' else '\n\n'.join(
        ''.join(c['source']) for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'markdown')
    return re.sub(
        r'`[^`\n]*`', lambda m: ' ' * len(m[0]),
        re.sub(r'^(```+|~~~+).*?^\1', lambda m: ' ' * len(m[0]), text, flags=re.M | re.S))

def rows(): return pd.read_csv(RESULTS/'numbers.csv', keep_default_na=False)

def spans(text, quotes): return [m.span() for q in quotes for m in re.finditer(re.escape(q), text)]

def untied(text, quotes):
    "Numbers of a text that stand in none of the quotes."
    known = spans(text, quotes)
    return [
        text[max(0, m.start() - 40):m.end() + 20].replace('\n', ' ') for m in FOUND.finditer(text)
        if not any(a <= m.start() and m.end() <= b for a, b in known)]


def test_a_number_is_seen():
    for text in (
        'took 23 seconds', 'a gain of .5 points', '-13.9% of', '3.3 times the speed', 'MRR@10 .367', 'recall of 0.57',
        '×1.04 in time', '1,428 visited nodes', '70 GB', '45 core hours'
    ):
        assert FOUND.search(text), text
    for text in ('w = 0.6', 'Python 3.11', 'recall@10', 'three seeds', 'M=32', '`70 GB` in code'):
        assert not FOUND.search(re.sub('`.*`', '', text)), text
    assert untied('it took 3 s and 4 GB', ['took 3 s']) == ['it took 3 s and 4 GB']


@pytest.mark.parametrize('path', PROSE, ids=name_of)
def test_every_number_in_prose_stands_in_the_table(path):
    known = rows()
    assert not untied(prose(path), known.quote[known.page.isin(['*', name_of(path)])].tolist())


def test_no_row_of_the_table_is_stale():
    texts = {name_of(p): prose(p) for p in PROSE}
    for r in rows().itertuples():
        assert any(
            r.quote in t for t in (texts.values() if r.page == '*' else [texts.get(r.page, '')])
        ), f'{r.page}: {r.quote}'
    assert set(rows().kind) <= {'measured', 'estimated', 'published', 'rule'} and (rows().source != '').all()



# pages and the folder whose tables they show; they are made by executing them with it
SHOWN = {
    'index': None, 'zh': None, 'method': None, 'experiments/answer': None, 'experiments/bm25': None,
    'experiments/recipes': None, 'experiments/gallery': None, 'experiments/published': None,
    'reliability': None, 'experiments/performance': None, 'experiments/adapter': None,
    **{
        f'experiments/{n}': f'results/{folder}'
        for n, folder in (
            ('weights', 'weights/tldr'), ('temperature', 'temperature/tldr'), ('ablation', 'ablation/tldr-minilm'))
         }}

def words_of(cells):
    "Texts and tables among the outputs, without the random ids of styles and without charts."
    for c in cells:
        if 'injected-parameters' in c['metadata'].get('tags', []): continue
        for o in c.get('outputs', []):
            d = o.get('data', {})
            if not any(k.startswith(('image/', 'application/')) for k in d):
                yield re.sub(
                    r'T_[0-9a-f]{5}', 'T_',
                    ''.join(d.get('text/html') or d.get('text/markdown') or d.get('text/plain') or o.get('text', '')))


@pytest.mark.parametrize('page', SHOWN)
def test_pages_show_what_the_tables_hold(page, tmp_path):
    "A page executed again on the tracked tables says what its saved outputs say."
    path = NBS/f'{page}.ipynb'
    parameters = {'study_dir': SHOWN[page]} if SHOWN[page] else {}
    papermill.execute_notebook(
        str(path), str(tmp_path/'again.ipynb'), parameters, cwd=str(path.parent), kernel_name='python3',
        progress_bar=False)
    saved, again = ([*words_of(json.loads(p.read_text())['cells'])] for p in (path, tmp_path/'again.ipynb'))
    assert saved == again and saved
