"The training commands on small data: each recipe, real texts, bad input."
import json, re, shutil, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import left_on_screen

from dacl_dr.data.answers import has_answer
from dacl_dr.training.checkpoints import checkpoints
from dacl_dr.cli.main import main
from dacl_dr.core.settings import (
    DataSettings, EncoderSettings, MiningSettings, Reading, RecipeSettings, RunSettings, Stage, TrainSettings,
)
from dacl_dr.core.yaml import load_settings
from dacl_dr.data.formats import read_questions
from dacl_dr.encoders.transformer import tiny_bert
from dacl_dr.curriculum.negatives import hard_share
from dacl_dr.data.toy import toy_data
from dacl_dr.training.sources import open_sources, read_data
from dacl_dr.encoders.static import StaticEncoder, bag_texts, load_encoder, train_tokenizer
from dacl_dr.curriculum.loader import training_data
from dacl_dr.curriculum.mining import Negatives, mine
from dacl_dr.training.trainer import train

SHARED = Path(__file__).resolve().parents[3]/'shared'/'data'
SHORT = ['--batch_size', '20', '--learning_rate', '0.001', '--hard_negatives', '2']
STAGES = ['--stage1-epochs', '1', '--stage2_epochs', '1', '--stage3_epochs', '1']


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    home = tmp_path_factory.mktemp('recipes')
    for name in ('one', 'two'): toy = toy_data(home/name)
    tiny_bert(home/'bert', [f.read_text().replace('"', ' ') for f in toy.iterdir()])
    (home/'mine.yaml').write_text(
        f"model: {{name: '{home/'bert'}', query_length: 16, passage_length: 32}}\nmining: {{depth: 20}}\n"
        f"run: {{report_to: []}}\n")
    return home


@pytest.fixture
def dacl(world, capsys):
    def run(command, output, *flags):
        code = main([
            command, '--config', str(world/'mine.yaml'), '--cache_dir', str(world/'cache'),
            '--output_base' if command == 'train-ablation' else '--output_dir', str(output), *map(str, flags)])
        out = capsys.readouterr()
        return code, out.out, re.sub(r'[^\r\n]*\r', '', out.err).strip()
    return run


@pytest.mark.parametrize('command, recipe, flags', [
    ('train-baseline', 'A', ['--num_epochs', '1']),
    ('train-baseline', 'B', ['--num-epochs', '1', '--distance-weight', '.6']),
    ('train-distance-aware', 'C', [*STAGES, '--distance_weight', '0']),
    (
        'train-distance-aware', 'D',
        [*STAGES, '--gradient_accumulation_steps', '2', '--symmetric', '--towers', 'separate', '--pooling', 'cls'])])
def test_every_recipe(world, dacl, tmp_path, command, recipe, flags):
    code, out, _ = dacl(command, tmp_path/'run', '--data_dir', world/'one', *SHORT, *flags)
    assert code == 0 and f'recipe {recipe}: ' in out and 'recall@10' in out
    history = json.loads((tmp_path/'run'/'history.json').read_text())
    assert len(history['minings']) == (recipe in 'CD')
    assert {s['stage'] for s in history['steps']} == (
        {'single'} if recipe in 'AB' else {'warm-up', 'distance', 'joint'})
    assert (history['steps'][0]['w'], history['steps'][-1]['w']) == {
        'A': (0, 0), 'B': (.6, .6), 'C': (0, 0), 'D': (0, .6)}[recipe]
    card = (tmp_path/'run'/'final_model'/'README.md').read_text()
    assert card.startswith('---\nlibrary_name: sentence-transformers')
    assert f'recipe {recipe} of DACL-DR' in card
    assert ('Mined negatives' in card) == (recipe in 'CD')
    assert ('2 accumulated batches add none: for 39 use batch_size 40' in out) == (recipe == 'D')
    encoder = load_encoder(tmp_path/'run'/'final_model')
    assert encoder.shared == (recipe != 'D')
    assert np.allclose(np.linalg.norm(encoder.encode(['ba ke'], 'query'), axis=1), 1, atol=1e-5)
    assert dacl(command, tmp_path/'run', '--data_dir', world/'one', *SHORT, *flags)[1].count('already trained') == 1


def test_ablation_over_weights(world, dacl, tmp_path):
    code, out, _ = dacl(
        'train-ablation', tmp_path, '--weights', '0.0', '0.6', '--data_dir', world/'one', *SHORT, *STAGES)
    assert code == 0 and {p.name for p in tmp_path.iterdir() if p.is_dir()} == {'ablation_w0.0', 'ablation_w0.6'}
    assert all((p/'final_model'/'modules.json').is_file() for p in tmp_path.iterdir() if p.is_dir())
    assert out.count('| 0') >= 2


def test_tensorboard_is_the_default(world, dacl, tmp_path):
    (tmp_path/'tb.yaml').write_text((world/'mine.yaml').read_text().replace('run: {report_to: []}\n', ''))
    assert main([
        'train-baseline', '--config', str(tmp_path/'tb.yaml'), '--cache_dir', str(world/'cache'), '--data_dir',
        str(world/'one'), '--output_dir', str(tmp_path/'run'), '--num_epochs', '1', *SHORT]) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(next((tmp_path/'run'/'runs').iterdir()))).Reload()
    tags = set(events.Tags()['scalars'])
    assert {
        'train/infonce', 'train/distance', 'train/w', 'train/negatives', 'train/learning_rate', 'eval/recall@10',
        'eval/alignment'} <= tags, tags
    assert [e.step for e in events.Scalars('train/negatives')] == list(range(1, 7))


@pytest.mark.parametrize('flags, parts', [
    (['--fp16'], ['needs a CUDA GPU'] if not torch.cuda.is_available() else []),
    (['--fp16', '--bf16'], ['not allowed with argument']),
    (['--data_dir', 'ALL'], ['holds one, two', '--dataset']),
    (['--data_dir', 'ALL', '--dataset', 'twp'], ["no data set 'twp'", "Did you mean 'two'?"]),
    (['--data_dir', 'nowhere'], ['nowhere', 'no such folder']),
    (['--temperature', '0'], ['--temperature', '> 0']),
    (['--pooling', 'sum'], ['--pooling', "'sum'"]),
    (['--batch_size', '1000'], ['120 training questions do not fill', 'lower training.batch_size']),
    (['--hard_negatives', '0'], ["stage 'distance' takes bm25 negatives, but hard_negatives is 0"]),
    (['--hard_negatives', '50'], ['mining.depth 20 is below']),
    (['--grad_cache', '--gradient_checkpointing'], ['both compute forward passes twice']),
    (['--model_name', 'no/model'], ["model 'no/model' cannot be loaded"]),
    (['--model_name', 'EMPTY'], ['no encoder here']),
    (['--stage3_epoch', '1'], ["Did you mean '--stage3_epochs'?"]),
])
def test_bad_flags_are_one_line(world, dacl, tmp_path, flags, parts):
    if not parts: pytest.skip('there is a GPU')
    (world/'empty').mkdir(exist_ok=True)
    flags = [{'ALL': str(world), 'EMPTY': str(world/'empty')}.get(f, f) for f in flags]
    code, _, err = dacl(
        'train-distance-aware', tmp_path/'run', *([] if '--data_dir' in flags else ['--data_dir', world/'one']),
        *STAGES, *flags)
    err = left_on_screen(err)
    assert code == 2 and len(err.splitlines()) == 1 and err.startswith('dacl: '), err
    for p in parts: assert p in err, err
    assert not (tmp_path/'run'/'checkpoints').exists() and not (tmp_path/'run'/'final_model').exists()


def test_after_a_failed_start_the_mended_command_goes_on(world, dacl, tmp_path):
    assert dacl('train-baseline', tmp_path/'run', '--data_dir', world/'one', '--batch_size', '1000')[0] == 2
    assert dacl('train-baseline', tmp_path/'run', '--data_dir', world/'one', *SHORT, '--num_epochs', '1')[0] == 0


@pytest.mark.parametrize('text, parts', [
    ('training: {temprature: 1}\n', ['line 1', "Did you mean 'temperature'?"]),
    ('model: {poling: cls}\n', ["Did you mean 'pooling'?"]),
    ('machine: {precision: fp8}\n', ['machine.precision', "'fp8'"]),
    ('recipe: A\n', ['recipe A is trained by dacl train-baseline']), ('recipe: E\n', ['recipe', "'E'"]),
    ('training:\n  stages:\n  - {name: a, epochs: 1, negatives: dense}\n', ['line 2', "'dense'"]),
    ('training:\n  stages:\n  - {name: a, epochs: 1}\n  - {name: a, epochs: 1}\n', ['two stages have one name']),
    ('training: {mask: [answr]}\n', ['training.mask', "'answr'"]),
    ('training:\n  stages: []\n', ['no stage has an epoch'])])
def test_bad_yaml_is_one_line(world, tmp_path, capsys, text, parts):
    (tmp_path/'mine.yaml').write_text(text)
    code = main([
        'train-distance-aware', '--config', str(tmp_path/'mine.yaml'), '--data_dir', str(world/'one'), '--output_dir',
        str(tmp_path/'run')])
    err = left_on_screen(capsys.readouterr().err).strip()
    assert code == 2 and len(err.splitlines()) == 1 and 'mine.yaml' in err, err
    for p in parts: assert p in err, err
    assert [p.name for p in tmp_path.iterdir()] == ['mine.yaml']


def test_negatives_of_other_data_are_refused(world, dacl, tmp_path):
    other = toy_data(tmp_path/'other', seed=5)
    assert main([
        'bm25-negatives', '--corpus_file', str(other/'psgs.tsv'), '--train_file', str(other/'toy-train.json'),
        '--output_path', str(tmp_path/'other.json'), '--hard_negatives', '2', '--cache_dir', str(world/'cache')]) == 0
    code, _, err = dacl(
        'train-distance-aware', tmp_path/'run', '--data_dir', world/'one', *SHORT, *STAGES, '--negatives_file',
        tmp_path/'other.json')
    assert code == 2
    assert 'other.json: 120 of the 120 training questions are not in it' in err
    assert 'dacl bm25-negatives' in err
    code, _, err = dacl(
        'train-distance-aware', tmp_path/'run2', '--data_dir', world/'one', *SHORT, *STAGES, '--negatives_file',
        world/'one'/'toy-train.json')
    assert code == 2 and 'has no hard negatives' in err


def test_a_tokenizer_of_another_model_is_refused(world, dacl, tmp_path):
    shutil.copytree(world/'bert', tmp_path/'mixed')
    tiny_bert(tmp_path/'large', [f'word{i}' for i in range(400)])
    for f in ('tokenizer.json', 'tokenizer_config.json'): shutil.copy(tmp_path/'large'/f, tmp_path/'mixed'/f)
    code, _, err = dacl(
        'train-baseline', tmp_path/'run', '--data_dir', world/'one', *SHORT, '--model_name', tmp_path/'mixed')
    assert code == 2 and 'the tokenizer has 404 tokens' in err and 'not of one model' in err, err


def test_full_disk_at_a_checkpoint(world, tmp_path):
    """A limit on the size of files stops the writing as a full disk does; earlier checkpoints stay, and with room again
    training goes on."""
    flags = [
        'train-baseline', '--config', world/'mine.yaml', '--cache_dir', world/'cache', '--data_dir', world/'one',
        '--output_dir', tmp_path/'run', '--num_epochs', '3', *SHORT]
    code = (
        "import sys, resource\nfrom dacl_dr.training import trainer as training\nfrom dacl_dr.cli.main import main\n"
        "save = training.save_checkpoint\n"
        "def limited(folder, *args):\n    if folder.name > 'step-000006': "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n    save(folder, *args)\n"
        "training.save_checkpoint = limited\nsys.exit(main(sys.argv[1:]))\n")
    r = subprocess.run([sys.executable, '-c', code, *map(str, flags)], capture_output=True, text=True)
    last = re.sub(r'[^\r\n]*\r', '', r.stderr).strip().splitlines()[-1]
    assert r.returncode == 2 and 'no room to write this checkpoint' in last and 'step-000012' in last, r.stderr[-500:]
    assert [c.name for c in checkpoints(tmp_path/'run'/'checkpoints')] == ['step-000006']
    assert not list((tmp_path/'run').rglob('*.partial'))
    assert main(list(map(str, flags))) == 0 and (tmp_path/'run'/'final_model'/'modules.json').is_file()


def static_on(folder, settings, tmp_path):
    "A static encoder trained on a data set, which takes seconds, and its data."
    trainset, _ = read_data(
        settings, open_sources(settings, folder, reading=Reading(tmp_path/'cache', show_progress=False)), tmp_path,
        reading=Reading(tmp_path/'cache', show_progress=False))
    texts = trainset.pool.take(np.arange(len(trainset.pool)))
    tokenizer = train_tokenizer(trainset.questions + texts, 8192)
    encoder = StaticEncoder.create(tokenizer, bag_texts(tokenizer, texts), EncoderSettings(), 0)
    data = training_data(encoder, trainset, 'x')
    train(encoder, data, settings, desc=None, say=lambda text: None)
    return encoder, data, trainset


@pytest.mark.parametrize('name', ['squad', 'tldr'])
def test_mined_negatives_are_harder_than_bm25s_and_none_is_relevant(tmp_path, name):
    """On all training questions, after a warm-up: more triplets with a positive margin below .05, no known positive, no
    answer."""
    if not (SHARED/name).is_dir(): pytest.skip(f'{name} is not here')
    limit = None if name == 'squad' else 4000
    settings = RecipeSettings(
        recipe='C', data=DataSettings(max_questions=limit), run=RunSettings(report_to=(), eval_questions=0),
        mining=MiningSettings(),
        training=TrainSettings(
            batch_size=512, hard_negatives=7, learning_rate=1e-2, warmup=0, max_grad_norm=0,
            stages=(Stage('warm-up', 2, (0, 0)), Stage('distance', 1, (0, 0), 'bm25'))))
    encoder, data, trainset = static_on(SHARED/name, settings, tmp_path)
    bm25, (mined, facts) = Negatives(encoder, data, settings).bm25, mine(encoder, data, settings)
    q, p = encoder.encode(data.queries, 'query'), encoder.encode(data.passages, 'passage')
    positive = (q * p[data.positives]).sum(1)
    share = {
        n: hard_share(positive, np.stack([(q * p[r]).sum(1) for r in rows.T], 1))
        for n, rows in (('bm25', bm25), ('mined', mined))}
    assert share['mined'] > 1.5 * share['bm25'] > 0, share
    texts, asked = trainset.pool.texts(np.arange(len(trainset.pool))), {
        q.question: q for q in read_questions(SHARED/name/f'{name}-train.json.gz')}
    for i in np.random.default_rng(0).permutation(len(mined))[:1500]: # by the definitions, not by the code that mined
        question = asked[trainset.questions[i]]
        if '.' in question.answers: continue # SQuAD has three, and every passage contains it
        for text in (texts[r] for r in mined[i]):
            assert ' '.join(text.split()) not in {' '.join(c.text.split()) for c in question.positive_ctxs}
            assert not has_answer(question.answers, text)


def test_whole_corpus_as_the_pool(world, dacl, tmp_path):
    "Negatives come from the corpus too, not only from the training file."
    code, out, _ = dacl(
        'train-distance-aware', tmp_path/'run', '--data_dir', world/'one', *SHORT, *STAGES, '--mining_pool', 'corpus')
    assert code == 0
    history = json.loads((tmp_path/'run'/'history.json').read_text())
    assert history['minings'][0]['pool'] == 160 # every passage; the training file knows fewer


@pytest.mark.parametrize(
    'path', sorted((Path(__file__).parents[2]/'nbs'/'experiments'/'settings').glob('recipes-*.yaml')),
    ids=lambda p: p.stem)
def test_published_settings_are_understood(path):
    assert load_settings(path, cls=RecipeSettings).training.stages[-1].negatives == 'model'
