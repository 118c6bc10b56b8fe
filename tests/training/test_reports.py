"""What a training tells TensorBoard, trackio, MLflow and W&B, as far as they are installed: the parts of the loss, w,
mining, and the cosines of each evaluation."""
import json, os, subprocess, sys
from importlib.util import find_spec

import pytest

from dacl_dr.core.settings import (
    MiningSettings, ModelSettings, Reading, RecipeSettings, RunSettings, Stage, TrainSettings,
)
from dacl_dr.data.toy import toy_data
from dacl_dr.encoders.transformer import tiny_bert
from dacl_dr.training.recipe import train_recipe

STEP = {'loss', 'infonce', 'distance', 'w', 'negatives', 'learning_rate'}
MINING = {'mining_hard_triplets', 'mining_dropped_too_close', 'mining_filled_random', 'mining_seconds'}
WATCHED = {'recall@10', 'pos mean', 'pos var', 'alignment'} # the positives' cosine among them
STAGES = (Stage('warm-up', 1, (0, 0)), Stage('distance', 1, (0, 1), 'bm25'), Stage('joint', 1, (1, 1), 'model'))


def trained(home, reports):
    "A run of recipe D, three epochs of some steps; its history."
    toy = toy_data(home/'data'/'toy', 160)
    tiny_bert(home/'bert', [f.read_text().replace('"', ' ') for f in toy.iterdir()])
    settings = RecipeSettings(
        model=ModelSettings(name=str(home/'bert'), query_length=16, passage_length=32),
        training=TrainSettings(batch_size=20, hard_negatives=2, learning_rate=1e-3, stages=STAGES),
        mining=MiningSettings(depth=20),
        run=RunSettings(log_every=1, report_to=reports, eval_questions=20, eval_passages=60))
    quiet = Reading(home/'cache', show_progress=False)
    train_recipe(settings, home/'data', home/'run', quiet, say=lambda text: None)
    return json.loads((home/'run'/'history.json').read_text())


CODE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_reports import trained
home, reports = Path(sys.argv[2]), sys.argv[3:]
history, rows = trained(home, tuple(reports)), []
if 'trackio' in reports:
    from trackio.sqlite_storage import SQLiteStorage as S
    rows = [row for p in S.get_projects() for r in S.get_runs(p) for row in S.get_logs(p, r)]
w = []
if 'mlflow' in reports:
    from mlflow import MlflowClient
    client = MlflowClient()
    [run] = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    w = [m.value for m in client.get_metric_history(run.info.run_id, 'w')]
    w = [w, list(run.data.metrics)]
(home/'told.json').write_text(json.dumps([history, rows, w], default=str))
"""
HAS = { # what is no requirement of development is tried where it is there
    'trackio': bool(find_spec('trackio') and find_spec('gradio_client')),
    'mlflow': bool(find_spec('mlflow')), 'wandb': bool(find_spec('wandb')),
}


@pytest.fixture(scope='module')
def told(tmp_path_factory):

    home = tmp_path_factory.mktemp('reports')
    env = os.environ | {
        'TRACKIO_DIR': str(home/'trackio'), 'HF_HUB_OFFLINE': '1', 'WANDB_MODE': 'offline', 'WANDB_DIR': str(home),
        'MLFLOW_TRACKING_URI': (home/'mlflow').as_uri(), 'MLFLOW_ALLOW_FILE_STORE': 'true'}
    there = [name for name, has in HAS.items() if has]
    command = [sys.executable, '-c', CODE, os.path.dirname(__file__), str(home), 'tensorboard', *there]
    subprocess.run(command, check=True, env=env, timeout=240)
    return home, *json.loads((home/'told.json').read_text())


def test_tensorboard_has_all_curves(told):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    home, history, *_ = told
    events = EventAccumulator(str(next((home/'run'/'runs').iterdir()))).Reload()
    tags = set(events.Tags()['scalars'])
    assert {f'train/{name}' for name in STEP | MINING} | {f'eval/{name}' for name in WATCHED} <= tags, sorted(tags)
    for name in STEP - {'learning_rate'}:
        told = [e.value for e in events.Scalars(f'train/{name}')]
        assert told == pytest.approx([row[name] for row in history['steps']], rel=1e-6)
    w = [e.value for e in events.Scalars('train/w')]
    assert w[0] == 0 and w[-1] == pytest.approx(.6) and w == sorted(w)


@pytest.mark.skipif(not HAS['trackio'], reason='trackio is not installed')
def test_trackio_has_all_curves(told):
    _, history, rows, _ = told
    names = set().union(*rows)
    assert {f'train/{name}' for name in STEP | MINING} | {f'eval/{name}' for name in WATCHED} <= names, sorted(names)
    for name in STEP - {'learning_rate'}:
        found = [row[f'train/{name}'] for row in rows if f'train/{name}' in row]
        assert found == pytest.approx([row[name] for row in history['steps']], rel=1e-6)


@pytest.mark.skipif(not HAS['mlflow'], reason='mlflow is not installed')
def test_mlflow_has_all_curves(told):
    _, history, _, [w, names] = told
    assert w == pytest.approx([row['w'] for row in history['steps']])
    assert STEP | MINING | {f'eval_{name}'.replace('@', '_') for name in WATCHED} <= set(names), names


@pytest.mark.skipif(not HAS['wandb'], reason='wandb is not installed')
def test_wandb_has_all_curves(told):
    [kept] = told[0].glob('wandb/offline-run-*/run-*.wandb')
    text = kept.read_bytes()
    for name in STEP | MINING: assert f'train/{name}'.encode() in text, name
    for name in WATCHED: assert f'eval/{name}'.encode() in text, name
