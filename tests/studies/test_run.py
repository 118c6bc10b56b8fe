"The whole pipeline on about 300 pairs."
import json, os, re, shutil, subprocess, sys

import msgspec
import nbformat
import pandas as pd
import pytest

from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import Settings
from dacl_dr.core.yaml import load_settings
from dacl_dr.studies.tables import publish, read_tables
from dacl_dr.studies.conclusions import conclusion
from dacl_dr.studies.findings import coverage_told, findings, summary
from dacl_dr.studies.paper import FIGURES, lacking
from dacl_dr.studies.run import quickstart, run_recipes, tiny_settings
from dacl_dr.studies.task import Task, tell_reading
from dacl_dr.data.formats import read_passages
from dacl_dr.data.toy import toy_data
from dacl_dr.encoders.static import load_encoder
from dacl_dr.encoders.transformer import tiny_bert
from dacl_dr.search.exact import repeated_share
from dacl_dr.metrics.ranking import METRICS
from dacl_dr.core.files import read_sealed, write_manifest
from dacl_dr.core.steps import read_manifest

STEPS = [
    'codedocs', 'bm25', *(f'{r}-seed0 {w}' for r in 'ABCD' for w in ('train', 'search')), 'latency', 'map', 'report']


def altered(**groups):
    "Tiny settings with some values changed."
    base = msgspec.to_builtins(tiny_settings())
    for group, values in groups.items(): base[group] = base[group] | values if isinstance(values, dict) else values
    return msgspec.convert(base, Settings)


def steps_in(said): return [line for line in said if ' looked at: ' not in line]
def numbers(run): return pd.read_csv(run/'results.csv').set_index(['recipe', 'seed', 'metric']).value


def test_every_step_runs_once(tiny_run):
    data, run, report, said = tiny_run
    assert [s.split('  ')[0].strip() for s in steps_in(said)] == STEPS
    assert not any('reused' in s for s in said)
    again = []
    assert quickstart(tiny_settings(), data, run, again.append) == report
    assert all('reused' in s for s in steps_in(again)) and len(steps_in(again)) == len(STEPS)


def test_what_the_encoder_reads_and_copies_of_passages_are_told(tiny_run):
    data, run, report, said = tiny_run
    kept = json.loads((run/'run.json').read_text())
    for what, n in (('queries', kept['corpus']['test']), ('passages', kept['corpus']['pairs'])):
        read = kept['coverage'][what]
        assert read['texts'] == min(1000, n) and read['unknown'] == read['cut'] == 0
        told = '0.0% of their tokens are unknown to the encoder, 0.0% of the texts are cut'
        assert f"{read['texts']:,} {what} looked at: {told}" in said
    shares = numbers(run).xs('repeated passages', level='metric')
    passages = read_passages(data/'codedocs'/'psgs.tsv')
    vectors = load_encoder(run/'D-seed0'/'train'/'encoder').encode([f'{p.title} {p.text}' for p in passages], 'passage')
    assert set(shares.index.get_level_values('recipe')) == set('ABCD')
    assert shares['D', 0] == pytest.approx(repeated_share(vectors), abs=.01)


def test_copies_are_in_the_findings_and_the_conclusion(tiny_run):
    t = read_tables(tiny_run[1])
    line = '30.0% of the passages repeat the vector of an earlier one'
    for share, told in ((.3, True), (0., False)):
        t.tables['study'] = t.study.assign(value=t.study.value.where(t.study.metric != 'repeated passages', share))
        assert (line in ' '.join(findings(t))) == (line in conclusion(t.study)) == told


def test_pages_and_published_tables_say_what_the_encoder_reads(tiny_run, tmp_path):
    data, run, report, _ = tiny_run
    t = read_tables(run)
    assert set(t.coverage) == {'queries', 'passages'}
    assert read_tables(publish(run, tmp_path/'published')).coverage == t.coverage
    said = coverage_told(t.coverage)
    assert len(said) == 2 and all(line in report.read_text() for line in said)
    kept = read_sealed(run/'run.json')
    shutil.copytree(run, tmp_path/'run')
    for told, lines in (
        ({}, 0), ({'queries': None}, 0),
        ({'passages': kept['coverage']['passages'] | {'unknown': 9000, 'cut': 90, 'limit': 8}}, 3)
    ):
        write_manifest(tmp_path/'run'/'run.json', kept | {'coverage': told})
        assert len(coverage_told(read_tables(tmp_path/'run').coverage)) == lines


def test_an_encoder_that_cannot_read_is_told_of_before_training(tmp_path, capsys):
    toy_data(tmp_path/'toy', 300)
    bert = tiny_bert(tmp_path/'bert', ['river', 'nile'])
    task = Task(tmp_path/'toy', msgspec.convert({'model': {'name': str(bert), 'passage_length': 8}}, Settings))
    said = []
    tell_reading(task, said.append)
    assert task.coverage['passages'].unknown_share > .5 and len(said) == 2
    err = capsys.readouterr().err
    assert 'of the tokens of the passages looked at are unknown to the encoder' in err
    assert 'of the passages looked at are longer than the 8 tokens' in err


def test_tables_are_whole(tiny_run):
    data, run, *_ = tiny_run
    t = read_tables(run)
    r = numbers(run)
    assert set(t.results.recipe) == {'BM25', *'ABCD'}
    for recipe in 'ABCD':
        assert 0 < r[recipe, 0, 'recall@1'] <= r[recipe, 0, 'recall@10'] <= r[recipe, 0, 'recall@100'] <= 1
        assert r[recipe, 0, 'visited at ANN recall 0.99'] > r[recipe, 0, 'visited at ANN recall 0.95'] > 10
        assert r[recipe, 0, 'alignment'] == pytest.approx(2 - 2 * r[recipe, 0, 'pos mean'], abs=1e-4)
    w = t.history[t.history.part == 'w'].groupby('recipe').value.max()
    assert (w['A'], w['C']) == (0, 0) and w['B'] == w['D'] == pytest.approx(.6)
    assert list(
        t.history[(t.history.recipe == 'D') & (t.history.part == 'w')].stage.unique()
    ) == ['warm-up', 'distance', 'joint']
    assert len(summary(t.study)) == 5
    assert set(t.study.kind) == {'quality', 'cost', 'space'} and set(t.map.model) == {'untrained', *'ABCD'}


def test_training_learns(tiny_run):
    "Trained vectors retrieve better than the same encoder untrained."
    data, run, *_ = tiny_run
    from dacl_dr.encoders.static import StaticEncoder
    from dacl_dr.studies.task import Task
    from dacl_dr.search.exact import exact_search
    from dacl_dr.metrics.ranking import gold_rank, task_metrics
    task = Task(data/'codedocs', tiny_settings())
    raw = StaticEncoder.create(task.tokenizer, task.prepare('pool'), tiny_settings().encoder, 0)
    before = task_metrics(
        gold_rank(exact_search(task.encode(raw, 'test'), task.encode(raw, 'all'), 100), task.test.gold))
    assert numbers(run)['A', 0, 'recall@10'] > before['recall@10']


def test_negatives_are_mined_once_and_filtered(tiny_run):
    data, run, *_ = tiny_run
    facts = read_manifest(run/'D-seed0'/'train')['facts']
    # the joint stage is the last two of four epochs, mined every second
    assert [m['step'] / facts['steps'] for m in facts['minings']] == [.5]
    assert 0 < facts['minings'][0]['dropped_known_positive'] < 1


def test_same_seed_same_numbers_other_seed_others(tiny_run, tmp_path):
    "Same seed in another process, with another hash seed: equal to the last digit. Another seed: not."
    data, run, *_ = tiny_run
    (tmp_path/'same.json').write_bytes(msgspec.json.encode(altered(recipes=['A', 'D'])))
    code = (
        'import sys, msgspec; from dacl_dr.core.settings import Settings; from dacl_dr.studies.run import run_recipes\n'
        'run_recipes(msgspec.json.decode(open(sys.argv[1]).read(), type=Settings), sys.argv[2], sys.argv[3])')
    subprocess.run(
        [sys.executable, '-c', code, tmp_path/'same.json', data/'codedocs', tmp_path/'same'], check=True,
        capture_output=True, env=os.environ | {'PYTHONHASHSEED': '5'})
    run_recipes(altered(recipes=['A', 'D'], seeds=[1]), data/'codedocs', tmp_path/'other', lambda m: None)
    a, b, c = numbers(run), numbers(tmp_path/'same'), numbers(tmp_path/'other')
    pd.testing.assert_series_equal(b, a.loc[b.index], check_exact=True)
    assert len(b) == len(METRICS) + 2 * len(b['A', 0]) and len(b['A', 0]) > 30
    for recipe in 'AD': assert c[recipe, 1, 'visited at ANN recall 0.95'] != a[recipe, 0, 'visited at ANN recall 0.95']


def test_a_changed_setting_repeats_only_what_it_touches(tiny_run, tmp_path):
    data, run, *_ = tiny_run
    shutil.copytree(run, tmp_path/'run')
    said = []
    run_recipes(altered(search={'ef_construction': 50}), data/'codedocs', tmp_path/'run', said.append)
    redone = [s.split('  ')[0].strip() for s in steps_in(said) if 'reused' not in s]
    assert redone == [*(f'{r}-seed0 search' for r in 'ABCD'), 'latency']
    said.clear()
    run_recipes(
        altered(search={'ef_construction': 50}, training={'w': .3}), data/'codedocs', tmp_path/'run', said.append)
    redone = [s.split('  ')[0].strip() for s in steps_in(said) if 'reused' not in s]
    # A and C do not use w
    assert redone == [f'{r}-seed0 {step}' for r in 'BD' for step in ('train', 'search')] + ['latency', 'map']


def test_an_interrupted_run_goes_on(tiny_run, tmp_path):
    data, run, *_ = tiny_run
    done = []
    def cut(message):
        done.append(message)
        if 'C-seed0 train' in message: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): run_recipes(tiny_settings(), data/'codedocs', tmp_path/'run', cut)
    assert not (tmp_path/'run'/'results.csv').exists()
    rest = []
    run_recipes(tiny_settings(), data/'codedocs', tmp_path/'run', rest.append)
    steps = [m for m in rest if 'looked at' not in m] # and how much of the texts could be read
    assert ['reused' in m for m in steps] == [True] * 6 + [False] * 5
    pd.testing.assert_series_equal(numbers(tmp_path/'run'), numbers(run), check_exact=True)
    assert not list((tmp_path/'run').rglob('*.partial'))


def test_the_report_is_one_readable_page(tiny_run):
    data, run, report, _ = tiny_run
    page = report.read_text()
    # recall is a table there, and of the frontier it has a chart of its own
    figures = [f for f in FIGURES if f.name != 'recall' and not lacking(f, read_tables(run).tables)]
    drawn = re.findall(r'drawChart\("(chart-[\d-]+)"', page)
    assert len(drawn) == len(set(drawn)) == len(figures) == 11
    for f in figures: assert f.name == 'frontier' or f.title in page
    body = page[page.rindex('<body>'):]
    for words in ('What was trained on what', 'Quality and cost', 'What this run supports', 'one seed', 'B against A'):
        assert words in body
    assert not re.search(r'Traceback|Warning:|\bnan\b', re.sub(r'<script.*?</script>', '', body, flags=re.S))
    assert not re.search(r'<(script|link|img)[^>]+(src|href)=', body) and '<script src' not in page
    recall = numbers(run)['A', 0, 'recall@10']
    assert f'{recall:.3f}' in body
    nb = nbformat.read(report.with_suffix('.ipynb'), 4)
    assert not [o for c in nb.cells if c.cell_type == 'code' for o in c.outputs if o.output_type == 'error']


def test_two_processes_do_not_share_a_run_folder(tiny_run, tmp_path):
    from filelock import FileLock
    with FileLock(tmp_path/'.lock'), pytest.raises(DaclError, match='another dacl process'):
        quickstart(tiny_settings(), tmp_path, tmp_path)


def test_three_seeds_give_intervals(tiny_run, tmp_path):
    data, run, *_ = tiny_run
    three = run_recipes(altered(recipes=['A', 'B'], seeds=[0, 1, 2]), data/'codedocs', tmp_path/'three', lambda m: None)
    t = summary(read_tables(three).study)
    assert '±' in t.loc['B', 'recall@10'] and '±' in t.loc['B', 'visited at ANN recall 0.95, change']


def test_a_damaged_run_is_mended_or_refused(tiny_run, tmp_path):
    data, run, *_ = tiny_run
    shutil.copytree(run, tmp_path/'run')
    (tmp_path/'run'/'A-seed0'/'search'/'sweep.parquet').unlink()
    (tmp_path/'run'/'B-seed0'/'search'/'manifest.json').write_text('{}')
    (tmp_path/'run'/'C-seed0'/'search'/'ranks.parquet').write_bytes(b'PAR1')
    with pytest.raises(DaclError, match='B-seed0/search: would be replaced'):
        run_recipes(tiny_settings(), data/'codedocs', tmp_path/'run', lambda m: None)
    shutil.rmtree(tmp_path/'run'/'B-seed0'/'search')
    run_recipes(tiny_settings(), data/'codedocs', tmp_path/'run', lambda m: None)
    pd.testing.assert_series_equal(numbers(tmp_path/'run'), numbers(run), check_exact=True)


def test_a_changed_digit_is_not_believed(tiny_run, tmp_path):
    "Neither of a run's tables nor of published ones, nor of what they say that they are about."
    shutil.copytree(tiny_run[1], tmp_path/'run')
    publish(tmp_path/'run', tmp_path/'published')
    for file in ('run/results.csv', 'run/sweeps.parquet', 'run/run.json', 'published/study.csv', 'published/run.json'):
        path = tmp_path/file
        whole = path.read_bytes()
        at = max(i for i, byte in enumerate(whole) if chr(byte).isdigit())
        path.write_bytes(whole[:at] + str((int(chr(whole[at])) + 1) % 10).encode() + whole[at + 1:])
        with pytest.raises(DaclError, match=f'{path.name}: .*(have changed|not what was written)'):
            read_tables(path.parent)
        path.write_bytes(whole)
        read_tables(path.parent)


def test_settings_reach_the_manifest(tiny_run):
    data, run, *_ = tiny_run
    assert msgspec.convert(json.loads((run/'run.json').read_text())['settings'], Settings) == tiny_settings()
    assert load_settings() == Settings()
