"Studies: what is done is skipped, what fails is told, what is killed goes on; here, and under Ray."
import json, os, re, signal, subprocess, sys, tempfile, time

import pandas as pd
import pytest
from processes import left_on_screen

from dacl_dr.cli.main import main
from dacl_dr.core.errors import DaclError
from dacl_dr.core.options import RunStudy
from dacl_dr.studies.tables import read_tables
from dacl_dr.studies.task import Task
from dacl_dr.studies.plan import study_plan
from dacl_dr.studies.workers import execute_run, jobs_of
from dacl_dr.studies import study
from dacl_dr.studies.study import open_study, run_study

YAML = '''question: Does a larger weight do more?
notebook: weights
corpus: {packages: [traitlets, nbformat, joblib]}
encoder: {vocab_size: 1000, dim: 32}
training: {batch_size: 64, num_epochs: 1}
search: {m: 8, ef_construction: 40}
recipes: [A, B]
weights: [0.6, 1.0]
seeds: [0, 1]
'''


def test_a_tiny_study_leaves_no_folder(monkeypatch, tmp_path):
    there = []
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setattr(study, 'study_data', lambda *a: None)
    monkeypatch.setattr(study, 'run_recipes', lambda s, data, run, tell: run.mkdir())
    monkeypatch.setattr(study, 'read_tables', lambda run: there.append(run.is_dir()) or 'tables')
    assert open_study('', 'ef')[1] == 'tables' and there == [True] and not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def data(tmp_path_factory, tiny_run):
    return tiny_run[0]


def asked(home, data, **changed):
    "What `dacl run-study` is told, of the study in a folder."
    return RunStudy(study=str(home/'small.yaml'), data_dir=str(data), output_dir=str(home/'runs'), **changed)


def numbers(folder): return pd.read_csv(folder/'results.csv').set_index(['model', 'seed', 'metric']).value.sort_index()


@pytest.fixture(scope='module')
def six(made_once, data):
    """A finished study of six runs, begun by the command and killed half-way: its folder, which runs were done by
    then, what the second call said, and where it stands. One worker of pytest makes it for all."""
    def make(home):
        (home/'small.yaml').write_text(YAML)
        words = ['run-study', str(home/'small.yaml'), '--data_dir', str(data), '--output_dir', str(home/'runs')]
        code = 'import sys; from dacl_dr.cli.main import main; sys.exit(main(sys.argv[1:]))'
        folder = home/'runs'/'small-codedocs-static'
        command = [sys.executable, '-c', code, *words, '--jobs', '2']
        p = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
        while len(list(folder.glob('*/run/manifest.json'))) < 2 and p.poll() is None: time.sleep(.1) # however slow
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        p.stdout.close()
        done = {f.parts[-3] for f in folder.glob('*/run/manifest.json')}
        assert 2 <= len(done) < 6
        said = []
        o = asked(home, data, jobs=2)
        assert run_study(study_plan(o), o, said.append) == (folder, [])
        return sorted(done), said
    home, (done, said) = made_once('six', make)
    return home/'runs'/'small-codedocs-static', set(done), said, home


def test_a_killed_study_does_only_what_is_missing(six):
    folder, done, said, home = six
    assert f'6 runs, {len(done)} of them done already' in said
    ended = {m.split()[1] for m in said if re.match(r'\d/\d', m)}
    assert ended == {f'{m}-seed{s}' for m in ('A', 'B', 'B-w1') for s in (0, 1)} - done
    assert not list(folder.rglob('*.partial'))
    t = read_tables(folder)
    assert set(t.study.model) == {'A', 'B', 'B w=1', 'BM25'} and t.study[t.study.model == 'A'].seeds.max() == 2
    about = json.loads((folder/'study.json').read_text())
    assert about['environment']['torch']
    assert about['data']
    assert about['plan']['question'] == 'Does a larger weight do more?'
    assert 'commit' in about
    for name in ('A-seed0', 'B-w1-seed1'): assert (folder/name/'run'/'run.ipynb').is_file()


def test_its_page_answers_the_question(six):
    folder, *_ = six
    page = (folder/'report'/'small.html').read_text()
    body = re.sub(r'<script.*?</script>', '', page[page.rindex('<body>'):], flags=re.S)
    for words in ('Does a larger weight do more?', 'B w=1', 'against A', '2 seeds', 'What it supports'):
        assert words in body
    assert not re.search(r'Traceback|\bnan\b', body) and page.count('drawChart("chart-') == 4


def test_a_changed_setting_repeats_only_what_it_touches(six, data):
    folder, _, _, home = six
    said = []
    o = asked(home, data, jobs=2, weights=(.6, .3))
    run_study(study_plan(o), o, said.append)
    assert {m.split()[1] for m in said if re.match(r'\d/\d', m)} == {'B-w0.3-seed0', 'B-w0.3-seed1'}
    assert set(read_tables(folder).study.model) == {'A', 'B', 'B w=0.3', 'BM25'}


def test_a_failing_run_is_told_and_stops_no_other(tmp_path, data, capsys):
    (tmp_path/'small.yaml').write_text(YAML.replace('seeds: [0, 1]', 'seeds: [0]'))
    blocked = tmp_path/'runs'/'small-codedocs-static'/'B-w1-seed0'/'train'
    blocked.mkdir(parents=True); (blocked/'mine.txt').write_text('a file that no step may replace')
    assert main([
        'run-study', str(tmp_path/'small.yaml'), '--data_dir', str(data), '--output_dir', str(tmp_path/'runs')]) == 1
    said = capsys.readouterr()
    told = [line for line in said.err.splitlines() if line.startswith('dacl: ')] # between progress bars
    assert len(told) == 1 and told[0].startswith('dacl: B-w1-seed0 failed: ') and 'would be replaced' in told[0]
    folder = tmp_path/'runs'/'small-codedocs-static'
    assert set(read_tables(folder).study.model) == {'A', 'B', 'BM25'} and (blocked/'mine.txt').is_file()
    assert 'report: ' in said.out


def test_the_same_study_under_ray(six, tmp_path, data):
    pytest.importorskip('ray')
    (tmp_path/'small.yaml').write_text(YAML.replace('seeds: [0, 1]', 'seeds: [1]'))
    o = asked(tmp_path, data, jobs=2, ray='local')
    folder, failed = run_study(study_plan(o), o, lambda m: None)
    assert failed == []
    here, there = numbers(six[0]), numbers(folder)
    same = there.index.intersection(here.index)
    assert len(same) > 60
    pd.testing.assert_series_equal(there[same], here[same], check_exact=True)


@pytest.mark.parametrize('change, says', [
    (['--set', 'training.temprature=.1'], "Did you mean 'temperature'"),
    (['--set', 'training.w=much'], 'expected float'), (['--set', 'w'], 'is not SETTING=VALUE'),
    (['--recipes', 'E'], "unknown recipe 'E'"), (['--dataset', 'nothing'], "no dataset 'nothing'"),
    (['--encoder', 'minlm'], "Did you mean 'minilm'"), (['--seeds', '1', '1'], 'each once')])
def test_a_bad_study_is_refused_before_it_starts(tmp_path, capsys, change, says):
    assert main(['run-study', 'weights', '--output_dir', str(tmp_path/'runs'), *change]) == 2
    said = left_on_screen(capsys.readouterr().err)
    assert says in said and len(said.splitlines()) == 1 and not (tmp_path/'runs').exists()


def test_a_setting_in_a_file_is_refused_by_line(tmp_path, capsys):
    (tmp_path/'mine.yaml').write_text('question: why?\nsearch:\n  ef_construction: many\n')
    assert main(['run-study', str(tmp_path/'mine.yaml'), '--output_dir', str(tmp_path/'runs')]) == 2
    assert 'mine.yaml line 3: search.ef_construction' in capsys.readouterr().err


def test_a_second_process_is_refused(six, data):
    from filelock import FileLock
    o = asked(six[3], data)
    with FileLock(six[0]/'.lock'), pytest.raises(DaclError, match='another dacl process'):
        run_study(study_plan(o), o)


def test_a_run_whose_process_dies_is_told(six, data, monkeypatch):
    plan = study_plan(asked(six[3], data, seeds=(7,)))
    jobs, _ = jobs_of(plan, Task(data/'codedocs', plan.settings), six[0], 1)
    (dies := six[3]/'dies').write_text('#!/bin/sh\nkill -9 $$\n'); dies.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(dies))
    found = execute_run(jobs[0])
    assert found.run == 'A-seed7' and 'ended with -9' in found.error
