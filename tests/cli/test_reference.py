"The pages of the commands: what would be written now, with examples that run and refusals that are the program's own."
import contextlib, fnmatch, gzip, io, re, runpy, shlex, shutil
from pathlib import Path

import msgspec, numpy as np, pytest, yaml

from dacl_dr.cli.about import ABOUT, GROUPS
from dacl_dr.cli.about_settings import SETTINGS
from dacl_dr.cli.flags import flags_of
from dacl_dr.cli.main import PROGRAM, build_parser, commands_in, main
from dacl_dr.cli.reference import flag_rows, pages, sections, setting_rows
from dacl_dr.core.errors import DaclError
from dacl_dr.core.yaml import load_settings
from dacl_dr.data.formats import read_passages
from dacl_dr.encoders.transformer import tiny_bert
from dacl_dr.studies.run import tiny_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT/'nbs'/'commands'


def lines_of(example):
    "The commands of an example."
    return [shlex.split(l)[1:] for l in example.replace('\\\n', ' ').splitlines()]


def told(pattern, said):
    "Is this what the program says? … stands for what differs from machine to machine."
    return re.fullmatch('.*'.join(map(re.escape, pattern.split('…'))), said, re.S)


def test_pages_are_what_would_be_written_now():
    made = pages()
    assert sorted(p.name for p in PAGES.glob('*.ipynb')) == sorted(made)
    stale = [name for name, content in made.items() if (PAGES/name).read_text(encoding='utf-8') != content]
    assert stale == [], "python -c 'from dacl_dr.cli.reference import write_pages; write_pages()'"


def test_the_sidebar_has_the_groups_of_the_help():
    contents = yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents']
    section = next(s for s in contents if s.get('section') == 'Commands')
    found = {s['section']: s['contents'] for s in section['contents'] if 'section' in s}
    expected = {g: [f'commands/{c.name}.ipynb' for c in commands_in(g)] for g in GROUPS}
    assert found == expected | {'Settings files': [f'commands/settings-{s.name}.ipynb' for s in SETTINGS]}


def test_everything_is_said():
    assert list(ABOUT) == [c.name for g in GROUPS for c in commands_in(g)] and set(ABOUT) == {c.name for c in PROGRAM}
    for c in PROGRAM:
        about, rows = ABOUT[c.name], flag_rows(c.options)
        assert about.use and about.writes and about.refuses and about.see, c.name
        assert len(rows) == len(flags_of(c.options)) and all(all(row) for row in rows), c.name
        for page in about.see: assert (ROOT/'nbs'/f'{page}.ipynb').is_file(), page
    for s in SETTINGS:
        for name, cls, values in [('', s.cls, s.cls()), *sections(s.cls)]:
            assert all(all(row) for row in setting_rows(cls, values)), (s.name, name)


@pytest.mark.parametrize('command', PROGRAM, ids=lambda c: c.name)
def test_help_ends_with_the_example(command, capsys):
    for words in lines_of(ABOUT[command.name].example):
        assert build_parser().parse_args(words).command == command.name
    with pytest.raises(SystemExit): build_parser().parse_args([command.name, '--help'])
    shown = capsys.readouterr().out
    assert shown.split('example:\n')[1].split() == ABOUT[command.name].example.split()


@pytest.mark.parametrize('file', SETTINGS, ids=lambda s: s.name)
def test_settings_load_or_are_refused_as_the_page_says(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path('mine.yaml')
    path.write_text(file.example)
    assert load_settings(path, cls=file.cls) != file.cls()
    for text, said in file.refuses.items():
        path.write_text(text)
        with pytest.raises(DaclError) as e: load_settings(path, cls=file.cls)
        assert told(said, str(e.value)), (text, str(e.value))


# What makes an example small: more words for it
SMALL = {
    'harvest': '--config tiny.yaml',
    'quickstart': '--config tiny.yaml --seeds 1',
    'tune': '--rounds 1',
    'adapt': '--held .5 --batch_size 8 --num_epochs 1 --random_passages 50 --anyway',
    **dict.fromkeys(('train-baseline', 'train-distance-aware', 'train-ablation'), '--config small.yaml'),
}
FINDS = {} # commands whose example ends with another exit code than 0
# needs the network; takes minutes, and stands in tests/studies
ONLY_PARSED = {'dacl download nq --data_dir data_set', 'dacl run-study weights --jobs 2'}


def furnish(home, tiny_run):
    "What the examples need: a model that stands where the hub's would, vectors, texts, raw questions, a finished run."
    data, run, *_ = tiny_run
    shutil.copytree(data/'codedocs', home/'data_set'/'codedocs')
    shutil.copytree(run, home/'runs'/'quickstart')
    passages = [' '.join(p.text.split()) for p in read_passages(home/'data_set'/'codedocs'/'psgs.tsv')]
    tiny_bert(home/'sentence-transformers'/'all-MiniLM-L6-v2', passages)
    (home/'tiny.yaml').write_text(yaml.safe_dump(msgspec.to_builtins(tiny_settings())))
    (home/'small.yaml').write_text(
        'model: {query_length: 16, passage_length: 32}\ndata: {max_questions: 64}\n'
        'run: {eval_questions: 20, eval_passages: 60}\n')
    (home/'baseline.yaml').write_text('recipe: A\n')
    (home/'passages.txt').write_text('\n'.join(passages))
    (home/'queries.txt').write_text('\n'.join(p[:60].strip() for p in passages[:50]))
    rng = np.random.default_rng(0)
    for name, shape in (('passages', (400, 8)), ('queries', (60, 8)), ('other', (400, 6))):
        np.save(home/f'{name}.npy', rng.normal(size=shape).astype('float32'))
    x, q = (
        v / np.linalg.norm(v, axis=1, keepdims=True)
        for v in (np.load(home/f'{n}.npy') for n in ('passages', 'queries')))
    near = (q @ x.T).argsort(1) # of every other query the farthest is relevant, so that a target of .99 is out of reach
    np.save(home/'qrels.npy', np.where(np.arange(60) % 2, near[:, -3], near[:, 0]))
    raw = runpy.run_path(str(ROOT/'tests'/'data'/'test_natural_questions.py'))['many']
    with gzip.open(home/'simplified-nq-train.jsonl.gz', 'wt') as f: f.write('\n'.join(raw))
    (home/'mine'/'codedocs').mkdir(parents=True)
    (home/'mine'/'codedocs'/'thesis.txt').write_text('years of work')
    (home/'empty').mkdir()


def files_here():
    "Every file but locks and what is kept for later."
    seen = [p for p in Path().rglob('*') if p.is_file() and p.parts[0] != 'cache']
    return {str(p) for p in seen if not any(x.startswith('.') for x in p.parts)}


def call(words):
    "Exit code, and what went to stderr."
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said): code = main(words)
    return code, said.getvalue().strip()


def written_faults(command, before):
    "Files that the page does not name, and names without a file."
    record = [f'*/{command.name}-*.command.json'] if command.recorded else []
    patterns, new = [*ABOUT[command.name].writes, *record], files_here() - before
    yield from (f'{command.name}: writes {f}' for f in sorted(new) if not any(fnmatch.fnmatch(f, p) for p in patterns))
    yield from (f'{command.name}: no {p}' for p in patterns if not fnmatch.filter(new, p))


def refusal_faults(command):
    "What is said otherwise than the page has it, and what was written all the same."
    about = ABOUT[command.name]
    begin = lines_of(about.example)[0] + shlex.split(SMALL.get(command.name, ''))
    for words, said in about.refuses.items():
        before = files_here()
        code, line = call(shlex.split(words)[1:] if words.startswith('dacl ') else begin + shlex.split(words))
        last = 'dacl: ' + line.rpartition('dacl: ')[2] # after what is told of texts on the way
        if code != 2 or not told(f'dacl: {said}', last): yield f'{command.name}: {words}: {code} {line}'
        yield from (f'{command.name}: {words}: wrote {f}' for f in sorted(files_here() - before))


def test_examples_run_and_refusals_are_the_programs_own(tmp_path, tiny_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('DACL_CACHE', str(tmp_path/'cache'))
    furnish(tmp_path, tiny_run)
    run, corpus = 'runs/quickstart/', 'data_set/codedocs/' # what stands there already
    begun, faults = {'quickstart': (run, corpus), 'report': (f'{run}report/',), 'harvest': (corpus,)}, []
    order = [c for g in ('Data', 'Training', 'Search and measure', 'Start here', 'Studies') for c in commands_in(g)]
    for command in order:
        lines = ABOUT[command.name].example.replace('\\\n', ' ').splitlines()
        tried = [l for l in lines if l not in ONLY_PARSED]
        before = {f for f in files_here() if not f.startswith(begun.get(command.name, ()))}
        for line in tried:
            code, said = call(shlex.split(line)[1:] + shlex.split(SMALL.get(command.name, '')))
            if code != FINDS.get(command.name, 0): faults.append(f'{line}: {code} {said[-300:]}')
        if len(tried) == len(lines): faults += written_faults(command, before)
        faults += refusal_faults(command)
    assert not faults, '\n'.join(faults)
