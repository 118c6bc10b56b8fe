"""The ten commands of the paper's README, one after the other on the tiny code-search corpus, with a small BERT of
random weights.

Each test is one command; it checks what the command wrote, not only that it wrote.
"""
import json

import pandas as pd
import pytest
from safetensors import safe_open

from dacl_dr.cli.main import main
from dacl_dr.data.formats import read_passages, read_questions
from dacl_dr.encoders.transformer import tiny_bert

MODELS = {'A': ('baseline', None), 'B': ('model_B', None), 'C': ('ablation_w0.0', 0.), 'D': ('ablation_w0.6', .6)}


def dacl(*args): return main([str(a) for a in args])


@pytest.fixture(scope='module')
def home(tmp_path_factory, tiny_run):
    home = tmp_path_factory.mktemp('commands')
    (home/'data_set').mkdir()
    (home/'data_set'/'codedocs').symlink_to(tiny_run[0]/'codedocs')
    tiny_bert(home/'local_model_backbone', [p.text for p in read_passages(home/'data_set'/'codedocs'/'psgs.tsv')])
    (home/'fast.yaml').write_text(
        'model: {query_length: 16, passage_length: 32}\ndata: {max_questions: 64}\n'
        'run: {eval_questions: 20, eval_passages: 60, report_to: []}\ntraining: {hard_negatives: 2}\n')
    return home


def corpus(home): return home/'data_set'/'codedocs'/'psgs.tsv'
def dev(home): return home/'data_set'/'codedocs'/'codedocs-dev.json'
def train_flags(home):
    return [
        '--config', home/'fast.yaml', '--data_dir', home/'data_set', '--model_name', home/'local_model_backbone',
        '--batch_size', 32, '--temperature', .05, '--cache_dir', home/'cache']
def weights(folder):
    with safe_open(next(folder.rglob('model.safetensors')), 'np') as f: return f.get_tensor(sorted(f.keys())[0])


def test_1_bm25(home):
    assert dacl(
        'bm25-eval', '--corpus_file', corpus(home), '--test_file', dev(home), '--output_path', home/'results'/'bm25',
        '--dataset_name', 'codedocs', '--cache_dir', home/'cache') == 0
    found = json.loads(next((home/'results'/'bm25').rglob('*.metrics.json')).read_text())
    assert .3 < found['metrics']['recall@10'] <= found['metrics']['recall@100'] <= 1


def test_2_baseline(home):
    assert dacl(
        'train-baseline', *train_flags(home), '--output_dir', home/'checkpoints'/'baseline', '--num_epochs', 1) == 0
    assert dacl(
        'train-baseline', *train_flags(home), '--output_dir', home/'checkpoints'/'model_B', '--num_epochs', 1,
        '--distance_weight', .6) == 0
    a, b = (home/'checkpoints'/n for n in ('baseline', 'model_B'))
    assert json.loads((a/'recipe.json').read_text())['settings']['recipe'] == 'A'
    assert json.loads((b/'recipe.json').read_text())['settings']['recipe'] == 'B'
    assert (weights(a/'final_model') != weights(b/'final_model')).any() # the distance loss did something


def test_3_distance_aware(home):
    assert dacl(
        'train-distance-aware', *train_flags(home), '--output_dir', home/'checkpoints'/'distance_aware',
        '--distance_weight', .6, '--gradient_accumulation_steps', 1, '--stage1_epochs', 1, '--stage2_epochs', 1,
        '--stage3_epochs', 1) == 0
    steps = json.loads((home/'checkpoints'/'distance_aware'/'history.json').read_text())['steps']
    assert list(dict.fromkeys(s['stage'] for s in steps)) == ['warm-up', 'distance', 'joint']
    assert steps[0]['w'] == 0
    assert steps[-1]['w'] == pytest.approx(.6)


def test_4_ablation_of_weights(home):
    assert dacl(
        'train-ablation', '--weights', 0, .6, *train_flags(home), '--output_base', home/'checkpoints',
        '--stage1_epochs', 1, '--stage2_epochs', 1, '--stage3_epochs', 1) == 0
    for name, w in (('ablation_w0.0', 0), ('ablation_w0.6', .6)):
        assert json.loads((home/'checkpoints'/name/'history.json').read_text())['steps'][-1]['w'] == pytest.approx(w)


def test_6_indexes(home): # the paper builds them after its fifth section, which needs them
    for folder, _ in MODELS.values():
        assert dacl(
            'build-index', '--encoder_path', home/'checkpoints'/folder/'final_model', '--corpus_path', corpus(home),
            '--output_path', home/'indices'/folder, '--index_type', 'hnsw', '--hnsw_m', 8, '--hnsw_ef_construction', 40,
            '--cache_dir', home/'cache') == 0
        about = json.loads((home/'indices'/folder/'manifest.json').read_text())
        assert about['rows'] == len(read_passages(corpus(home))) and about['settings']['m'] == 8


def test_5_ablation_of_four_models(home):
    pairs = lambda base, tail='': [f'{n}={home/base/folder}{tail}' for n, (folder, _) in MODELS.items()]
    assert dacl(
        'run-ablation', '--model_dirs', *pairs('checkpoints', '/final_model'), '--index_dirs', *pairs('indices'),
        '--test_file', dev(home), '--output_path', home/'results'/'ablation', '--dataset_name', 'codedocs', '--rounds',
        1, '--draws', 50, '--cache_dir', home/'cache') == 0
    study = pd.read_csv(home/'results'/'ablation'/'codedocs'/'study.csv')
    assert set(study.model) == set('ABCD')
    assert study[study.model == 'A'].change.isna().all()
    assert study[(study.model == 'D') & (study.metric == 'recall@10')].change.notna().all()
    sweeps = pd.read_csv(home/'results'/'ablation'/'codedocs'/'sweeps.csv')
    assert (sweeps.groupby('model')['ann recall'].max() > .95).all()


@pytest.mark.parametrize('missing', ['A', 'B'])
def test_5_refuses_a_model_without_an_index(home, missing, capsys):
    for folder in 'xy': (home/folder).mkdir(exist_ok=True)
    pairs = [f'{n}={home/"indices"/f}' for n, (f, _) in MODELS.items() if n != missing]
    assert dacl(
        'run-ablation', '--model_dirs', f'A={home/"x"}', f'B={home/"y"}', '--index_dirs',
        *[p for p in pairs if p[0] in 'AB'], '--test_file', dev(home), '--dataset_name', 'x', '--output_path',
        home/'nothing') == 2
    assert f'{missing} stands in only one of them' in capsys.readouterr().err and not (home/'nothing').exists()


def test_7_evaluation(home):
    common = [
        '--encoder_path', home/'checkpoints'/'ablation_w0.6'/'final_model', '--index_path',
        home/'indices'/'ablation_w0.6', '--test_file', dev(home), '--cache_dir', home/'cache']
    assert dacl(
        'run-evaluation', *common, '--output_path', home/'results'/'w0.6', '--k_values', 1, 5, 10, 20, 50, 100,
        '--hnsw_ef_search', 100, '--experiment_name', 'w0.6') == 0
    found = json.loads((home/'results'/'w0.6'/'w0.6.metrics.json').read_text())['metrics']
    assert found['recall@1'] <= found['recall@100'] <= 1 and found['ANN recall@100'] > .9 and found['visited'] > 100


def test_8_representation(home):
    assert dacl(
        'run-representation-eval', '--encoder_path', home/'checkpoints'/'ablation_w0.6'/'final_model', '--dev_file',
        dev(home), '--output_path', home/'results'/'representation', '--num_samples', 10000, '--cache_dir', home/'cache'
    ) == 0
    found = json.loads((home/'results'/'representation'/'representation.json').read_text())
    assert found['questions'] == len(read_questions(dev(home))) and -4.1 < found['numbers']['uniformity passages'] < 0


def test_9_ef_sweep(home):
    common = [
        '--encoder_path', home/'checkpoints'/'ablation_w0.6'/'final_model', '--index_path',
        home/'indices'/'ablation_w0.6', '--test_file', dev(home), '--cache_dir', home/'cache']
    assert dacl(
        'run-ef-sweep', *common, '--output_path', home/'results'/'ef_sweep', '--ef_values', 16, 32, 64, 128, '--rounds',
        1, '--draws', 50, '--experiment_name', 'w0.6') == 0
    curve = pd.read_csv(home/'results'/'ef_sweep'/'w0.6.sweep.csv')
    assert curve.visited.is_monotonic_increasing
    assert curve['ann recall'].iloc[-1] > .95
    assert (curve['latency ms'] > 0).all()


def test_10_figures(home, tiny_run, capsys):
    # trained models alone have no history, no maps, one weight
    assert dacl(
        'generate-figures', '--results_dir', home/'results', '--output_dir', home/'figures', '--format', 'pdf') == 1
    drawn = sorted((home/'figures').glob('*.pdf'))
    assert [f.name[:2] for f in drawn] == ['06', '08', '09', '10', '12']
    assert all(f.read_bytes().startswith(b'%PDF') and f.stat().st_size > 5000 for f in drawn)
    assert capsys.readouterr().out.count('not drawn') == 7
