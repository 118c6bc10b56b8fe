"What a training tells TensorBoard and trackio: the parts of the loss, w, mining, and the cosines of each evaluation."
import json, os, subprocess, sys
from importlib.util import find_spec

import pytest

from dacl_dr.core.settings import MiningSettings, ModelSettings, Reading, RecipeSettings, RunSettings, Stage, TrainSettings
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
        mining=MiningSettings(depth=20), run=RunSettings(log_every=1, report_to=reports, eval_questions=20, eval_passages=60))
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
(home/'told.json').write_text(json.dumps([history, rows], default=str))
"""
HAS_TRACKIO = bool(find_spec('trackio') and find_spec('gradio_client'))


@pytest.fixture(scope='module')
def told(tmp_path_factory):
    """One training with all reports, in a process of its own, since trackio reads where it stores when it is imported:
    the folder, the history, and trackio's rows. Nothing leaves this machine."""
    home = tmp_path_factory.mktemp('reports')
    env = os.environ | {'TRACKIO_DIR': str(home/'trackio'), 'HF_HUB_OFFLINE': '1'}
    command = [sys.executable, '-c', CODE, os.path.dirname(__file__), str(home), 'tensorboard', *['trackio'] * HAS_TRACKIO]
    subprocess.run(command, check=True, env=env, timeout=120)
    return home, *json.loads((home/'told.json').read_text())


def test_tensorboard_has_all_curves(told):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    home, history, _ = told
    events = EventAccumulator(str(next((home/'run'/'runs').iterdir()))).Reload()
    tags = set(events.Tags()['scalars'])
    assert {f'train/{name}' for name in STEP | MINING} | {f'eval/{name}' for name in WATCHED} <= tags, sorted(tags)
    for name in STEP - {'learning_rate'}:
        told = [e.value for e in events.Scalars(f'train/{name}')]
        assert told == pytest.approx([row[name] for row in history['steps']], rel=1e-6)
    w = [e.value for e in events.Scalars('train/w')]
    assert w[0] == 0 and w[-1] == pytest.approx(.6) and w == sorted(w)


@pytest.mark.skipif(not HAS_TRACKIO, reason='trackio is not installed')
def test_trackio_has_all_curves(told):
    _, history, rows = told
    names = set().union(*rows)
    assert {f'train/{name}' for name in STEP | MINING} | {f'eval/{name}' for name in WATCHED} <= names, sorted(names)
    for name in STEP - {'learning_rate'}:
        found = [row[f'train/{name}'] for row in rows if f'train/{name}' in row]
        assert found == pytest.approx([row[name] for row in history['steps']], rel=1e-6)
