"Killed at any moment, a training goes on to the same weights; on two processes it gives those of one."
import json, os, re, signal, sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dacl_dr.training.checkpoints import checkpoints
from dacl_dr.encoders.transformer import tiny_bert
from dacl_dr.data.toy import toy_data
from processes import left_on_screen, start, torchrun

# 120 questions in batches of 20, two an optimiser's step: 3 steps an epoch; warm-up steps 0-5, distance 6-11, joint
# 12-20
SETTINGS = '''
model: {name: BERT, query_length: 16, passage_length: 32}
training:
  batch_size: 20
  hard_negatives: 2
  learning_rate: 0.001
  stages:
  - {name: warm-up, epochs: 2, weight: [0, 0]}
  - {name: distance, epochs: 2, weight: [0, 1], negatives: bm25}
  - {name: joint, epochs: 3, negatives: model}
mining: {refresh_every: 2, depth: 20}
machine: {gradient_accumulation_steps: 2, chunk_tokens: 200}
run: {save_every: 2, eval_passages: 100, report_to: []}
'''


def program(argv, killed, out, err):
    "The program in a process of its own, killed before a step or in the middle of writing the checkpoint of one."
    for path, stream in ((out, 1), (err, 2)): os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), stream)
    from dacl_dr.training import checkpoints, trainer as training
    from dacl_dr.cli.main import main
    step, moment = killed or (None, None)
    compute, save, trainers = training.RecipeTrainer.training_step, checkpoints.save_arrays, []
    def counted(self, *args, **kwargs):
        trainers[:] = [self]
        if moment == 'step' and self.state.global_step == step: os.kill(os.getpid(), signal.SIGKILL)
        return compute(self, *args, **kwargs)
    def written(arrays, path):
        save(arrays, path)
        if moment == 'checkpoint' and trainers[0].state.global_step >= step: os.kill(os.getpid(), signal.SIGKILL)
    training.RecipeTrainer.training_step, checkpoints.save_arrays = counted, written
    sys.exit(main(argv))


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    home = tmp_path_factory.mktemp('resume')
    toy = toy_data(home/'data'/'toy')
    words = [l for f in toy.iterdir() for l in f.read_text().replace('"', ' ').splitlines()]
    tiny_bert(home/'bert', words, hidden_dropout_prob=.1)
    tiny_bert(home/'still', words, hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
    (home/'mine.yaml').write_text(SETTINGS.replace('BERT', str(home/'bert')))
    assert train(home, 'whole').returncode == 0
    return home


def flags(home, name, *more):
    return [
        'train-distance-aware', '--config', home/'mine.yaml', '--data_dir', home/'data', '--output_dir', home/name,
        '--cache_dir', home/'cache', *more]


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def train(home, name, *more, killed=None):
    out, err = home/f'{name}.out', home/f'{name}.err'
    for f in (out, err): f.unlink(missing_ok=True)
    p = start(program, list(map(str, flags(home, name, *more))), killed, out, err)
    p.join()
    # without progress bars
    return Result(p.exitcode, out.read_text(), left_on_screen(err.read_bytes().decode()).strip())


def weights(home, name): return load_file(home/name/'final_model'/'model.safetensors')


def history(home, name):
    "Steps, minings and evaluations, without what was timed."
    log = json.loads((home/name/'history.json').read_text())
    return [
        [{k: v for k, v in row.items() if k not in ('questions_per_s', 'seconds')} for row in log[part]]
        for part in ('steps', 'minings', 'evaluations')]


def card(home, name):
    "The model card, without the seconds of its minings."
    return re.sub(r'[\d.]+ \|$', '', (home/name/'final_model'/'README.md').read_text(), flags=re.M)


# random steps, drawn once from the 6, 6 and 9 steps of the three stages; 13 and 15 are in the middle of an epoch with
# mined negatives
@pytest.mark.parametrize(
    'step, moment',
    [
        (1, 'step'), (4, 'step'), (7, 'step'), (12, 'step'), (13, 'step'), (20, 'step'), (4, 'checkpoint'),
        (14, 'checkpoint')])
def test_killed_and_resumed(world, step, moment):
    name = f'{moment}{step}'
    r = train(world, name, killed=(step, moment))
    assert r.returncode == -signal.SIGKILL, r.stderr[-1500:]
    assert not (world/name/'final_model').exists()
    whole = checkpoints(world/name/'checkpoints')
    r = train(world, name)
    assert r.returncode == 0, r.stderr[-1500:]
    assert ('going on from' in r.stdout) == bool(whole)
    a, b = weights(world, 'whole'), weights(world, name)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert card(world, name) == card(world, 'whole')
    assert history(world, name) == history(world, 'whole') # the log too, without gap or repetition
    assert not list((world/name).rglob('*.partial')) and len(list((world/name/'checkpoints').iterdir())) <= 2


def test_what_a_run_leaves(world):
    "No pickle anywhere; the history tells of stages, minings and evaluations; every checkpoint is an encoder."
    from dacl_dr.encoders.static import load_encoder
    run = world/'whole'
    assert {f.suffix for f in run.rglob('*') if f.is_file()} <= {'.json', '.safetensors', '.md', '.lock', ''}
    history = json.loads((run/'history.json').read_text())
    assert [s['stage'] for s in history['steps']] == ['warm-up'] * 6 + ['distance'] * 6 + ['joint'] * 9
    w = [s['w'] for s in history['steps']]
    assert w[:6] == [0] * 6 and w[6:12] == pytest.approx([.12 * i for i in range(6)]) and w[12:] == [.6] * 9
    assert [m['step'] for m in history['minings']] == [12, 18] and 0 <= history['minings'][1]['overlap'] <= 1
    assert len(history['evaluations']) == 8
    assert history['evaluations'][0]['epoch'] == 0
    assert {'recall@10', 'pos mean', 'alignment', 'uniformity queries'} <= history['evaluations'][0].keys()
    assert all(s['questions_per_s'] > 0 and 19 <= s['negatives'] + 1 <= 60 for s in history['steps'])
    best = max(history['evaluations'][1:], key=lambda e: e['recall@10'])['step']
    assert {f'step-{best:06d}', 'step-000021'} == {p.name for p in (run/'checkpoints').iterdir()}
    for c in checkpoints(run/'checkpoints'): load_encoder(c)


def test_another_recipe_is_refused(world):
    for change, words in (
        (['--temperature', '.1'], 'training.temperature is 0.05 there and 0.1 here'),
        (['--distance_weight', '0'], 'recipe is D there and C here'), (['--seed', '1'], 'seed is 0 there and 1 here'),
        (['--stage3_epochs', '4'], 'training.stages')
    ):
        r = train(world, 'whole', *change)
        assert r.returncode == 2 and words in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    r = train(world, 'whole', '--save_every', '7') # changes nothing that is computed
    assert r.returncode == 0 and 'already trained' in r.stdout


def test_other_data_are_refused(world, tmp_path):
    toy_data(tmp_path/'data'/'toy', seed=1)
    r = train(world, 'whole', '--data_dir', tmp_path/'data')
    assert r.returncode == 2 and 'sha256 of data.' in r.stderr and 'there and' in r.stderr, r.stderr


def test_two_processes_train_what_one_does(world):
    """Without dropout, two processes with half of each batch end at the weights of one, gradient cache on, mining
    included."""
    more = ['--model_name', world/'still', '--grad_cache']
    assert train(world, 'one', *more).returncode == 0
    r = torchrun('--no-python', Path(sys.executable).with_name('dacl'), *flags(world, 'two', *more))
    assert r.returncode == 0, r.stderr[-3000:]
    a, b = weights(world, 'one'), weights(world, 'two')
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-4
    (one, *mined), (two, *others) = history(world, 'one'), history(world, 'two')
    # untrained, and after each of 7 epochs
    assert [m['pool'] for m in mined[0]] == [m['pool'] for m in others[0]] and len(mined[1]) == len(others[1]) == 8
    assert np.allclose([s['infonce'] for s in one], [s['infonce'] for s in two], atol=1e-3)
