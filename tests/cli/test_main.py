"The program as its users meet it: help, and one line with exit code 2 for what they can mend."
import io, os, re, subprocess, sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dacl_dr.cli.main import build_parser, main
from dacl_dr.core.home import settle_compiled, settle_home

ROOT = Path(__file__).resolve().parents[2]


def dacl(*args, cwd=ROOT, **env):
    return subprocess.run(
        [sys.executable, '-c', 'import sys; from dacl_dr.cli.main import main; sys.exit(main())', *map(str, args)],
        cwd=cwd, capture_output=True, text=True, env=os.environ | {'PYTHONPATH': str(ROOT)} | env)


COMMANDS = list(build_parser()._subparsers._group_actions[0].choices)


@pytest.mark.parametrize('command', [(), *((c,) for c in COMMANDS)])
def test_help(command):
    r = dacl(*command, '--help')
    assert r.returncode == 0 and 'usage: dacl' in r.stdout and not r.stderr
    assert COMMANDS == [
        'quickstart', 'harvest', 'report', 'download', 'preprocess-dpr', 'preprocess-nq', 'bm25-eval', 'bm25-negatives',
        'train-baseline', 'train-distance-aware', 'train-ablation', 'build-index', 'run-evaluation', 'run-ef-sweep',
        'run-representation-eval', 'diagnose', 'tune', 'adapt', 'generate-figures', 'run-study', 'run-ablation',
        'repeat']


def one_line(result, *parts):
    assert result.returncode == 2, result.stderr
    is_one_line(result.stderr, *parts)


def is_one_line(said, *parts):
    lines = said.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('dacl: '), said
    for p in parts: assert p in lines[0], lines[0]


@pytest.mark.parametrize('args, parts', [
    (['--w', '-1'], ['--distance_weight', 'training.w', '>= 0.0']),
    (['--distance-weight', '-1'], ['training.w', '>= 0.0']),
    (['--temperature', '0'], ['--temperature', '> 0']),
    (['--batch_size', '1'], ['--batch_size', '>= 2']),
    (['--seeds', '0'], ['--seeds']),
    (['--seeds', '0', '1', '--seed', '5'], ['--seed: 5 is given beside the 2 seeds of --seeds']),
    (['--seed', '-1'], ['--seed', '>= 0']),
    (['--recipes', 'A', 'E'], ["unknown recipe 'E'"]),
    (['--recipes', 'A', 'A'], ['each once']),
    (['--temperature', 'inf'], ['--temperature', '<= 1']),
    (['--seed', '99999999999999999999'], ['seed']),
    (['--stage1_epochs', '0', '--stage2_epochs', '0', '--stage3_epochs', '0'], ['no stage has an epoch']),
    (['--stage2_epochs', '-1'], ['>= 0']),
    (['--stage4_epochs', '1'], ['--stage4_epochs', 'Did you mean']),
    (['--temprature', '.1'], ["Did you mean '--temperature'?"]),
    (['--config', 'absent.yaml'], ['absent.yaml', 'cannot be read']),
])
def test_bad_flags(args, parts, tmp_path):
    one_line(dacl('quickstart', '--output_dir', tmp_path/'run', '--data_dir', tmp_path/'data', *args), *parts)
    assert list(tmp_path.iterdir()) == [] # refused before anything was made


@pytest.mark.parametrize('text, parts', [
    (
        'training:\n  temprature: 0.1\n',
        ['line 2', "unknown setting 'training.temprature'", "Did you mean 'temperature'?"]),
    ('trianing: {}\n', ['line 1', "Did you mean 'training'?"]),
    (
        'training:\n  stages:\n  - {name: warm-up, epoks: 1}\n',
        ["unknown setting 'training.stages.epoks'", "Did you mean 'epochs'?"]),
    ('training:\n  stages:\n  - {name: late, epochs: 1, negatives: bm26}\n', ['line 2', 'training.stages', "'bm26'"]),
    ('training:\n  hard_negatives: 0\n', ["stage 'distance' takes bm25 negatives, but hard_negatives is 0"]),
    ('training:\n  w: high\n', ['line 2', 'training.w', 'expected float, got str']),
    ('training:\n  w: 1\n  w: 2\n', ['line 3', 'given twice']),
    ('training: [1\n', ['not valid YAML']),
    ('- a\n', ["expected 'key: value'"]),
    ('search:\n  ef_values: [4, 16]\n', ['below k=10']),
    ('search:\n  targets: []\n', ['at least one']),
    ('corpus:\n  packages: [tqdm, tqdm]\n', ['each once']),
    ('corpus:\n  dev_share: 0.5\n  test_share: 0.5\n', ['nothing to train on']),
    ('training: &x {w: *x}\n', ['YAML']),
    ('training:\n  w: 2001-99-99\n', ['YAML']),
    ('!!python/object/apply:os.system ["true"]\n', ['not valid YAML']),
])
def test_bad_yaml(text, parts, tmp_path):
    (f := tmp_path/'mine.yaml').write_text(text)
    one_line(dacl('quickstart', '--config', f, '--output_dir', tmp_path/'run'), 'mine.yaml', *parts)
    assert [p.name for p in tmp_path.iterdir()] == ['mine.yaml']


def test_missing_package(tmp_path):
    (f := tmp_path/'mine.yaml').write_text('corpus:\n  packages: [tqdm, no-such-package]\n')
    one_line(
        dacl('quickstart', '--config', f, '--output_dir', tmp_path/'run', '--data_dir', tmp_path/'data'),
        "'no-such-package' is not installed", 'pip install')


# What is refused after torch is imported is so in this process; the test above has a process that imports it
def test_run_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path/'file').write_text('')
    assert main(['quickstart', '--output_dir', str(tmp_path/'file'/'run')]) == 2
    is_one_line(capsys.readouterr().err, 'cannot write here')
    locked = tmp_path/'locked'
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK): locked = Path('/proc') # root may write to a read-only folder, but not here
    assert main(['quickstart', '--output_dir', str(locked/'run')]) == 2
    is_one_line(capsys.readouterr().err, 'cannot write here', 'choose another folder')


def test_a_folder_of_the_users_is_never_replaced(tmp_path):
    (tmp_path/'data'/'codedocs').mkdir(parents=True)
    (tmp_path/'data'/'codedocs'/'thesis.txt').write_text('years of work')
    one_line(
        dacl('harvest', '--packages', 'nbformat', 'traitlets', '--data_dir', tmp_path/'data'), 'codedocs',
        'is not a finished step')
    assert (tmp_path/'data'/'codedocs'/'thesis.txt').read_text() == 'years of work'


def test_report_of_no_run(tmp_path, capsys):
    assert main(['report', '--output_dir', str(tmp_path/'nothing')]) == 2
    is_one_line(capsys.readouterr().err, 'not a finished run')


def test_harvest_says_what_it_made(tmp_path):
    r = dacl('harvest', '--packages', 'nbformat', 'traitlets', '--data_dir', tmp_path)
    assert r.returncode == 0 and 'pairs of' in r.stdout and (tmp_path/'codedocs'/'psgs.tsv').exists()


@pytest.mark.parametrize('argv, named', [
    (['diagnose', '--encoder', 'a/b', '--corpus', 'absent.tsv', '--queries', 'absent.txt'], 'absent.tsv'),
    (['diagnose', '--vectors', 'absent.npy'], 'absent.npy'),
    (['build-index', '--encoder_path', 'a/b', '--corpus_path', 'absent.tsv', '--output_path', 'x'], 'absent.tsv'),
    (['build-index', '--encoder_path', './absent', '--corpus_path', '.', '--output_path', 'x'], "model './absent'"),
    (['run-evaluation', '--encoder_path', 'a/b', '--index_path', 'absent', '--test_file', '.'], 'absent: not there'),
    (['run-representation-eval', '--encoder_path', 'a/b', '--dev_file', 'absent.json'], 'absent.json'),
    (
        [
            'run-ablation', '--model_dirs', 'A=./absent', '--index_dirs', 'A=.', '--test_file', '.', '--dataset_name',
            'd'],
        "model './absent'"),
])
def test_a_missing_input_is_told_before_torch_is_imported(argv, named, tmp_path):
    code = (
        "import sys; from dacl_dr.cli.main import main; code = main(sys.argv[1:]); sys.exit(10 if 'torch' in "
        "sys.modules else code)")
    ended = subprocess.run(
        [sys.executable, '-c', code, *argv], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert ended.returncode == 2
    assert ended.stderr.startswith('dacl: ')
    assert named in ended.stderr
    assert ended.stderr.count('\n') == 1


def test_one_word_for_one_thing():
    "Every command calls a corpus, an encoder, its output the same; the words of before are understood."
    from dacl_dr.cli.flags import flags_of, flag_names
    from dacl_dr.cli.main import PROGRAM
    shown = {c.name: {f.name: flag_names(c.options, f.name)[0] for f in flags_of(c.options)} for c in PROGRAM}
    for words in shown.values():
        assert not {
            'corpus_file', 'corpus_path', 'encoder_path', 'model_name', 'output_path', 'output_dir', 'output_base'
        } & {*words.values()}
    old = ['bm25-eval', '--corpus_file', 'c', '--test_file', 't', '--dataset_name', 'n', '--output_path', 'o']
    new = ['bm25-eval', '--corpus', 'c', '--queries', 't', '--dataset_name', 'n', '--output', 'o']
    given = [{n: v for n, v in vars(build_parser().parse_args(words)).items() if n != 'does'} for words in (old, new)]
    assert given[0] == given[1] and given[0]['corpus_file'] == 'c'


def test_a_flag_of_another_command_is_told():
    one_line(dacl('diagnose', '--jobs', '2'), "'--jobs', a flag of run-study", 'dacl diagnose --help')


def test_a_terminal_of_ascii_shows_what_it_can(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(io.BytesIO(), encoding='ascii'))
    assert main(['run-study', 'weights', '--dry_run']) == 0
    sys.stdout.flush()
    shown = sys.stdout.buffer.getvalue().decode('ascii')
    assert 'runs: A-seed0' in shown
    r = subprocess.run(
        [
            sys.executable, '-c',
            "from dacl_dr.cli.main import main; import sys; from dacl_dr.cli import main as m; m.run_command = lambda "
            "argv: print('passages → index ± τ'); main([])"],
        cwd=ROOT, capture_output=True, env=os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONIOENCODING': 'ascii'})
    assert r.stdout == b'passages ? index ? ?\n', r.stderr


def test_without_a_home_folder(tmp_path):
    "As in a container: no HOME that is there; the caches go to a folder of their own, which is told once."
    code = (
        "import os; from dacl_dr.core.home import settle_home; from pathlib import Path; print(settle_home(), "
        "Path.home().is_dir()); from dacl_dr.data.conversion import cache_home; print(cache_home())")
    env = {k: v for k, v in os.environ.items() if k != 'DACL_CACHE'} | {
        'PYTHONPATH': str(ROOT), 'HOME': '/no/such/home', 'TMPDIR': str(tmp_path)}
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)
    home = tmp_path/f'dacl-home-{os.getuid()}'
    assert r.stdout.split() == [str(home), 'True', str(home/'.cache'/'dacl-dr')], r.stderr


def test_a_home_folder_that_is_anothers(tmp_path, monkeypatch):
    """As under sudo -u: it is there and cannot be written to; so numba, which refuses to be imported without a cache,
    gets one too."""
    mine = tmp_path/f'dacl-home-{os.getuid()}'
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    # put back afterwards
    for name, value in (('HOME', str(ROOT)), ('NUMBA_CACHE_DIR', 'kept')): monkeypatch.setenv(name, value)
    monkeypatch.setattr('numba.config.CACHE_DIR', '')
    assert settle_compiled() is None and settle_home() is None
    del os.environ['NUMBA_CACHE_DIR']
    assert settle_compiled() is None # beside the package
    monkeypatch.setattr('os.access', lambda path, mode: False)
    assert settle_compiled() == mine/'numba' == Path(os.environ['NUMBA_CACHE_DIR']) and settle_compiled() is None
    monkeypatch.setattr('os.access', lambda path, mode: mine in (path, *path.parents))
    assert settle_home() == mine and Path.home() == mine and settle_home() is None


TEXTS = ('--corpus', 'psgs.tsv', '--queries', 'psgs.tsv')

@pytest.mark.parametrize('words', [
    ('train-baseline', '--data_dir', 'nowhere'), ('train-ablation', '--weights', '0', '--data_dir', 'nowhere'),
    ('build-index', '--encoder', 'nowhere', '--corpus', 'psgs.tsv', '--output', 'x'),
    *((c, '--encoder', 'x', '--index', 'nowhere', '--queries', 'psgs.tsv') for c in ('run-evaluation', 'run-ef-sweep')),
    ('run-representation-eval', '--encoder', 'nowhere', '--queries', 'psgs.tsv'), ('run-study', 'nowhere'),
    *((c, '--encoder', 'nowhere', *TEXTS) for c in ('diagnose', 'tune', 'adapt')),
], ids=lambda words: words[0])
def test_what_is_nowhere_is_refused_before_libraries_are_loaded(words, tmp_path):
    (tmp_path/'psgs.tsv').write_text('id\ttext\ttitle\n1\ta\tb\n')
    code = 'import sys; from dacl_dr.cli.main import main; c = main(); print("torch" in sys.modules); sys.exit(c)'
    env = os.environ | {'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1'}
    r = subprocess.run([sys.executable, '-c', code, *words], cwd=tmp_path, capture_output=True, text=True, env=env)
    one_line(r, 'nowhere')
    assert r.stdout == 'False\n' and [f.name for f in tmp_path.iterdir()] == ['psgs.tsv']


DAMAGED = ('--corpus', 'bad.tsv', '--queries', 'bad.tsv')

@pytest.mark.parametrize('words', [
    ('train-baseline', '--data_dir', 'bad', '--model_name', 'bert'),
    ('build-index', '--encoder', 'bert', *DAMAGED[:2], '--output', 'x'),
    ('run-evaluation', '--encoder', 'bert', '--index', 'bert', *DAMAGED[2:]),
    ('run-representation-eval', '--encoder', 'bert', *DAMAGED[2:]),
    *((c, '--encoder', 'bert', *DAMAGED) for c in ('diagnose', 'tune', 'adapt')),
], ids=lambda words: words[0])
def test_what_is_damaged_is_refused_before_libraries_are_loaded(words, tmp_path):
    (tmp_path/'bert').mkdir() # what is in it is not looked at
    (tmp_path/'bert'/'config.json').write_text('{"model_type": "bert"}')
    (tmp_path/'bert'/'manifest.json').write_text('{}')
    (tmp_path/'bad').mkdir()
    (tmp_path/'bad'/'bad-train.json').write_text('[{"question": 3}]')
    (tmp_path/'bad.tsv').write_text('id\ttext\ttitle\n1\t"never closed\n')
    code = 'import sys; from dacl_dr.cli.main import main; c = main(); print("torch" in sys.modules); sys.exit(c)'
    env = os.environ | {'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1', 'DACL_CACHE': str(tmp_path/'cache')}
    r = subprocess.run([sys.executable, '-c', code, *words], cwd=tmp_path, capture_output=True, text=True, env=env)
    assert r.returncode == 2 and r.stdout == 'False\n', r.stderr
    assert re.search(r'dacl: bad(.tsv|/bad-train.json) (line|record) ', r.stderr), r.stderr


def test_the_program_does_without_grammars_that_take_seconds_to_build():
    code = (
        'import sys; sys.argv = ["dacl"]; from dacl_dr.cli.main import main; {}; import altair\n'
        'print(bool(sys.modules.get("rfc3987_syntax")), altair.Chart({{"values": '
        '[]}}).mark_point().to_dict()["mark"]["type"])')
    run = lambda call: subprocess.run(
        [sys.executable, '-c', code.format(call)], capture_output=True, text=True,
        env=os.environ | {'PYTHONPATH': str(ROOT)}).stdout.splitlines()[-1]
    assert run('main()') == 'False point'
    there = find_spec('rfc3987_syntax') is not None
    assert run('main([])') == f'{there} point' # as it is installed, for others in this process
