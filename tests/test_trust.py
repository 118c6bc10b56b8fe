"""Nothing here runs code that came as data, writes where it was not told to, or gives secrets away; and a run can be
repeated."""
import ast, json, os, re
from configparser import ConfigParser
from pathlib import Path

import pytest

from dacl_dr.cli.main import main
from dacl_dr.core.errors import DaclError
from dacl_dr.core.options import BuildIndex
from dacl_dr.core.settings import EncoderSettings, IndexSettings, Reading
from dacl_dr.data.formats import read_passages
from dacl_dr.encoders.transformer import tiny_bert
from dacl_dr.data.toy import toy_data
from dacl_dr.encoders.static import StaticEncoder, bag_texts, load_encoder, train_tokenizer
from dacl_dr.search.indexing import make_index

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    *sorted((ROOT/'dacl_dr').rglob('*.py')), *sorted((ROOT/'tests').rglob('*.py')),
    *sorted((ROOT/'benchmarks').glob('*.py')), ROOT/'setup.py',
    *(p for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts)]
UNSAFE = (
    r'eval|exec|yaml\.(unsafe_|full_)?load(_all)?|(c?pickle|dill|cloudpickle|joblib|marshal|shelve)\.\w+|'
    r'torch\.(load|save)|os\.(system|popen)|\w+\.extractall|tempfile\.mktemp|pd\.read_pickle|\w+\.to_pickle')
# its own class, from a folder it has just written
ALLOWED = {ROOT/p: ['trust_remote_code=True'] for p in ('nbs/encoders/static.ipynb', 'tests/encoders/test_static.py')}
ALLOWED[ROOT/'tests/encoders/test_loading.py'] = ['torch.save'] # weights as other programs leave them
FLAGS = {'allow_pickle': True, 'shell': True, 'trust_remote_code': True, 'verify': False, 'weights_only': False}


def code_of(path):
    "The Python of a module, or of a notebook's cells; magics are left out."
    if path.suffix == '.py': return path.read_text(encoding='utf-8')
    cells = [
        ''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    return '\n'.join(re.sub(r'^(\s*)[%!].*$', r'\1pass', c, flags=re.M) for c in cells if not c.startswith('%%'))


def unsafe(code):
    "What of a program runs code that came as data."
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            if re.fullmatch(UNSAFE, ast.unparse(node.func)): found.append(ast.unparse(node.func))
            found += [
                f'{k.arg}={k.value.value}' for k in node.keywords
                if k.arg in FLAGS and isinstance(k.value, ast.Constant) and k.value.value is FLAGS[k.arg]]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += [
                n for n in [*(a.name for a in node.names), getattr(node, 'module', None) or '']
                if re.fullmatch(r'c?pickle|dill|cloudpickle|marshal|shelve|joblib', n)]
    return found


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_code_comes_as_data(path): assert unsafe(code_of(path)) == ALLOWED.get(path, [])


@pytest.mark.parametrize(
    'code',
    [
        'eval("1")', 'import pickle', 'from pickle import loads', 'torch.load(f)', 'np.load(f, allow_pickle=True)',
        'subprocess.run("ls", shell=True)', 'yaml.load(f)', 'AutoModel.from_pretrained(n, trust_remote_code=True)',
        'archive.extractall()'])
def test_unsafe_code_is_seen(code): assert unsafe(code)


def test_everything_is_pinned():
    lines = [l for l in (ROOT/'constraints.txt').read_text().splitlines() if l and not l.startswith('#')]
    assert [l for l in lines if not re.fullmatch(r'[\w.-]+(\[\w+\])?==[\w.!+]+', l)] == []
    pinned = {re.sub(r'[-_.]+', '-', l.split('==')[0]).lower() for l in lines}
    ini = ConfigParser()
    ini.read(ROOT/'settings.ini')
    named = [
        re.split(r'[<>=!~]', w)[0] for k in ('requirements', 'dev_requirements') for w in ini['DEFAULT'][k].split()]
    assert {re.sub(r'[-_.]+', '-', n).lower() for n in named} - pinned == set()


@pytest.fixture(scope='module')
def named(tmp_path_factory):
    "Commands whose results are named by an option: the words of each, whose inputs are there, and that option."
    home = tmp_path_factory.mktemp('named')
    toy = toy_data(home/'toy')
    texts = [f'{p.title} {p.text}' for p in read_passages(toy/'psgs.tsv')]
    tokenizer = train_tokenizer(texts, 300)
    StaticEncoder.create(tokenizer, bag_texts(tokenizer, texts), EncoderSettings(dim=16), 0).save(home/'encoder')
    make_index(BuildIndex(
        encoder_path=str(home/'encoder'), corpus_path=str(toy/'psgs.tsv'), output_path=str(home/'index'),
        index=IndexSettings(m=8, ef_construction=40), reading=Reading(home/'cache', show_progress=False)))
    encoder, index, asked = home/'encoder', home/'index', ['--queries', toy/'toy-dev.json']
    one, few = ['--encoder', encoder, '--index', index, *asked], ['--rounds', 0, '--draws', 20]
    models = ['--encoders', f'A={encoder}', '--indexes', f'A={index}']
    words = {
        'bm25-eval': (['--corpus', toy/'psgs.tsv', *asked], 'dataset_name'),
        'run-evaluation': ([*one, '--k_values', 5], 'experiment_name'),
        'run-ef-sweep': ([*one, *few], 'experiment_name'),
        'run-ablation': ([*models, *asked, *few], 'dataset_name'),
    }
    return {c: ([c, *map(str, argv), '--cache_dir', str(home/'cache')], name) for c, (argv, name) in words.items()}

NAMED = 'bm25-eval', 'run-evaluation', 'run-ef-sweep', 'run-ablation'


@pytest.mark.parametrize('command', NAMED)
@pytest.mark.parametrize('name', ['../../up', os.sep + 'up', 'a/../../up', '..', ''])
def test_a_name_does_not_leave_its_folder(name, command, named, tmp_path, capsys):
    argv, option = named[command]
    assert main([*argv, f'--{option}', name, '--output_path', str(tmp_path/'in'/'out')]) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and said.startswith(f'dacl: {option} {name!r} names files')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('command', NAMED)
def test_another_name_stays_in_its_folder(command, named, tmp_path):
    "What the names above are refused for is the name alone: with another the same words give results."
    argv, option = named[command]
    assert main([*argv, f'--{option}', 'up', '--output_path', str(tmp_path/'in'/'out')]) == 0
    made = {f.relative_to(tmp_path/'in'/'out') for f in tmp_path.rglob('*') if f.is_file()} # all of them below it
    assert made and any('up' in str(f) for f in made)


def test_an_encoders_own_code_is_not_run(tmp_path):
    words = ['find the nearest passage', 'draw a picture']
    tiny_bert(tmp_path/'bert', words)
    (tmp_path/'bert'/'modeling_mine.py').write_text(
        f'from pathlib import Path\nPath({str(tmp_path/"ran")!r}).touch()\nfrom transformers import BertModel as Mine\n'
    )
    config = json.loads((tmp_path/'bert'/'config.json').read_text())
    (tmp_path/'bert'/'config.json').write_text(
        json.dumps(
            config
            | {
                'model_type': 'mine',
                'auto_map': {'AutoModel': 'modeling_mine.Mine', 'AutoConfig': 'modeling_mine.Mine'}}))
    with pytest.raises(DaclError): load_encoder(str(tmp_path/'bert'))
    assert not (tmp_path/'ran').exists()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A finished training whose settings file is gone, run where the environment holds a token."
    home = tmp_path_factory.mktemp('repeat')
    toy = toy_data(home/'data'/'toy')
    tiny_bert(home/'bert', [l for f in toy.iterdir() for l in f.read_text().replace('"', ' ').splitlines()])
    (home/'mine.yaml').write_text(
        f'model: {{name: {home}/bert, query_length: 16, passage_length: 32}}\n'
        f'training: {{num_epochs: 1, batch_size: 40}}\nrun: {{report_to: []}}\n')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('HF_TOKEN', 'hf_verysecret'); m.setenv('AWS_SECRET_ACCESS_KEY', 'hf_verysecret')
        assert main([
            'train-baseline', '--config', str(home/'mine.yaml'), '--data_dir', str(home/'data'), '--output_dir',
            str(home/'run'), '--cache_dir', str(home/'cache')]) == 0
    (home/'mine.yaml').unlink()
    return home


def test_secrets_reach_no_file(trained):
    files = [f for f in trained.rglob('*') if f.is_file()]
    assert len(files) > 20 and [f for f in files if b'hf_verysecret' in f.read_bytes()] == []


def test_a_run_repeats(trained, capsys):
    assert main(['repeat', str(trained/'run')]) == 0
    out = capsys.readouterr().out
    assert 'nothing has changed since' in out and 'all the same' in out
    assert (
        trained/'run-repeat'/'final_model'/'model.safetensors'
    ).read_bytes() == (trained/'run'/'final_model'/'model.safetensors').read_bytes()


def test_a_changed_input_is_told(trained, capsys):
    words = (trained/'data'/'toy'/'toy-train.json').read_text()
    try:
        (trained/'data'/'toy'/'toy-train.json').write_text(words.replace('lomon', 'tudil'))
        assert main(['repeat', str(trained/'run'), '--output_dir', str(trained/'other')]) == 1
    finally: (trained/'data'/'toy'/'toy-train.json').write_text(words)
    out = capsys.readouterr().out
    assert 'model.safetensors: other bytes' in out and 'recipe.json: sha256.train' in out


def test_a_folder_without_a_record_is_told(tmp_path, capsys):
    assert main(['repeat', str(tmp_path)]) == 2
    assert 'nothing is known of the command' in capsys.readouterr().err
