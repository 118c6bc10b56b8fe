"A study of one's own: checked before it starts, shown by a page that knows it; figures of what is there; kernels."
import json, re, sys

import pytest

from dacl_dr.cli.main import main
from dacl_dr.core.options import RunStudy
from dacl_dr.data.toy import toy_data
from dacl_dr.studies.paper import FIGURES, generate_figures, lacking
from dacl_dr.studies.plan import study_plan
from dacl_dr.studies.study import study_words
from dacl_dr.studies.tables import read_tables

YAML = '''question: Does a warmer start help?
corpus: {packages: [traitlets, nbformat, joblib]}
encoder: {vocab_size: 1000, dim: 32}
training: {batch_size: 64, num_epochs: 1, stages: [{name: all, epochs: 1}]}
search: {m: 8, ef_construction: 40}
recipes: [A, B, D]
'''


@pytest.fixture(scope='module')
def mine(tmp_path_factory, tiny_run):
    "A study from a file that has no notebook of its name, finished by the command."
    home = tmp_path_factory.mktemp('own')
    (home/'mine.yaml').write_text(YAML)
    words = ['run-study', str(home/'mine.yaml'), '--data_dir', str(tiny_run[0]), '--output_dir', str(home/'runs')]
    assert main(words) == 0
    return home/'runs'/'mine-codedocs-static'


def looked_at(folder): return {what: f'{read.texts:,}' for what, read in read_tables(folder).coverage.items()}


def test_its_page_knows_it(mine):
    page = (mine/'report'/'mine.html').read_text()
    body = re.sub(r'<script.*?</script>', '', page[page.rindex('<body>'):], flags=re.S)
    assert '<title>mine</title>' in page and 'A study of one' not in body
    read = [
        f'{n} {what} looked at: 0.0% of their tokens are unknown to the encoder' for what, n in looked_at(mine).items()]
    for words in ('Does a warmer start help?', 'dacl run-study', 'mine.yaml', 'One seed', 'cannot tell', *read):
        assert words in body
    assert not re.search(r'Traceback|\bnan\b|\binf\b|unbounded|-100', body)
    drawn, tables = re.findall(r'drawChart\("(chart-[\d-]+)"', page), read_tables(mine).tables
    assert len(drawn) == len(set(drawn)) == sum(not lacking(f, tables) for f in FIGURES) >= 8


def test_figures_of_what_is_there(mine, tmp_path):
    files, missing = generate_figures(mine.parent, tmp_path/'figures', 'svg', show_progress=False)
    told = {line.split('(')[1].split(')')[0] for line in missing}
    assert len(files) + len(told) == 12 and len(files) >= 8
    for line in missing: assert 'mine.yaml' in line or 'search.ef_values' in line


@pytest.mark.parametrize('change, says', [
    (['--dataset', 'tldr'], 'How to get tldr: '), (['--set', 'training.batch_size=100000'], 'do not fill one batch'),
    (['--encoder', 'no-such-folder'], 'or a folder with an encoder'), (['--recipes', 'B'], 'recipes: A is missing')])
@pytest.mark.parametrize('dry', [True, False])
def test_what_is_missing_is_told_before_anything_starts(tmp_path, capsys, change, says, dry):
    (tmp_path/'mine.yaml').write_text('training: {batch_size: 16}\n')
    toy_data(tmp_path/'data'/'toy', 200)
    words = [
        'run-study', str(tmp_path/'mine.yaml'), '--data_dir', str(tmp_path/'data'), '--output_dir', str(tmp_path/'runs')
    ]
    dataset = [] if '--dataset' in change else ['--dataset', 'toy']
    assert main([*words, *dataset, *change, *(['--dry_run'] if dry else [])]) == 2
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1 and not (tmp_path/'runs').exists()


def test_an_encoder_may_be_a_folder(mine, tmp_path):
    folder = mine/'A-seed0'/'train'/'encoder'
    plan = study_plan(RunStudy(study='weights', encoder=str(folder)))
    assert plan.settings.model.name == str(folder.resolve()) and plan.encoder == 'encoder'


def test_a_study_finds_its_own_words(mine):
    words = study_words(mine)
    assert words.title == 'mine' and 'mine.yaml --dataset codedocs --encoder static' in words.command


def test_another_python_that_is_called_python3_runs_no_notebook(mine, tmp_path, monkeypatch):
    kernel = tmp_path/'jupyter'/'kernels'/'python3'
    kernel.mkdir(parents=True)
    (kernel/'kernel.json').write_text(
        json.dumps({
            'argv': ['/no/such/python', '-f', '{connection_file}'], 'display_name': 'other', 'language': 'python'}))
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path/'jupyter'))
    from dacl_dr.report.notebook import OwnKernel
    assert OwnKernel(kernel_name='python3').kernel_spec.argv[0] == sys.executable


@pytest.mark.parametrize(
    'seeds, runs, note', [(['3'], {3}, True), (['0', '1', '2'], {0, 1, 2}, False), (['0'], {0}, False)])
def test_seeds_of_a_study_are_the_seeds_themselves(tmp_path, capsys, seeds, runs, note):
    "In a quickstart one number says how many; who means that here is told."
    toy_data(tmp_path/'data'/'toy', 200)
    (tmp_path/'mine.yaml').write_text('training: {batch_size: 16}\nrecipes: [A]\n')
    words = [
        'run-study', str(tmp_path/'mine.yaml'), '--dataset', 'toy', '--data_dir', str(tmp_path/'data'), '--dry_run',
        '--seeds']
    assert main([*words, *seeds]) == 0
    said = capsys.readouterr()
    assert {int(n) for n in re.findall(r'A-seed(\d)', said.out)} == runs
    assert ('--seeds 3 is one seed, number 3; for 3 of them give --seeds 0 1 2' in said.err) == note
