"The commands that are harmed, the small world they work in, and what of their results must be equal."
import hashlib, importlib, json, multiprocessing, os, re, shutil, signal, sys, threading, time
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from safetensors import safe_open
from safetensors.numpy import load_file
from tqdm import tqdm

from dacl_dr.data.formats import Passage, read_passages, write_passages
from dacl_dr.core.files import write_manifest
from dacl_dr.core.options import RunStudy
from dacl_dr.core.settings import ModelSettings
from dacl_dr.encoders.transformer import TransformerEncoder, tiny_bert
from dacl_dr.studies.plan import study_plan
from dacl_dr.studies.run import begin_run, study_data, tiny_settings
from dacl_dr.studies.steps import train_step
from dacl_dr.studies.tables import bm25_folder
from dacl_dr.studies.task import Task
from dacl_dr.data.toy import toy_data
from dacl_dr.cli.repeat import values_of

HERE = Path(__file__).parent
PATHS = [str(p) for p in (HERE.parents[1], HERE, HERE.parent/'tuning', HERE.parents[1]/'benchmarks')]
sys.path += PATHS[2:]
from made import flags, write # tests/tuning/made.py
os.environ |= {
    'OMP_NUM_THREADS': '1', 'NUMBA_NUM_THREADS': '1', 'NUMBA_THREADING_LAYER': 'workqueue',
    'TOKENIZERS_PARALLELISM': 'false', 'HF_HUB_OFFLINE': '1', 'PYTHONPATH': os.pathsep.join(PATHS)}
CONTEXT = multiprocessing.get_context('forkserver') # a fresh process each time, with the libraries already there
CONTEXT.set_forkserver_preload([
    'dacl_dr.training.recipe', 'dacl_dr.evaluation.ef_sweep', 'dacl_dr.evaluation.diagnosis', 'dacl_dr.studies.study',
    'dacl_dr.tuning.tuner', 'dacl_dr.adapting.adapt', 'dacl_dr.cli.main', 'sentence_transformers', 'umap', 'papermill',
    'trials', 'warm'])


class Command(NamedTuple):
    name: str
    argv: Callable # of a world and a home, the folder that holds all it writes
    mark: str # 'module:function' where its work begins
    nth: int = 1 # call of it
    until: str = '' # the work ends with that call, not with the program
    slow: dict = {} # arguments that make more moments
    constants: dict = {} # 'module:NAME' → a value that makes more moments


class World(NamedTuple):
    "What the commands read. Made once, never written again but for the cache."
    root: Path
    def __truediv__(self, name): return self.root/name


TRAINING = '''
model: {name: BERT, query_length: 16, passage_length: 32}
training:
  batch_size: 20
  hard_negatives: 2
  learning_rate: 0.001
  stages:
  - {name: warm-up, epochs: 1, weight: [0, 0]}
  - {name: distance, epochs: 1, weight: [0, 1], negatives: bm25}
  - {name: joint, epochs: 2, negatives: model}
mining: {refresh_every: 1, depth: 20}
data: {max_questions: 80}
run: {save_every: 2, eval_questions: 20, eval_passages: 50, report_to: []}
'''


def make_world(root:Path)->World:
    "Toy data, a BERT of random weights, two corpora, an index, settings of seconds."
    from dacl_dr.cli.main import main
    toy = toy_data(root/'data'/'toy')
    words = [l for f in toy.iterdir() for l in f.read_text().replace('"', ' ').splitlines()]
    tiny_bert(root/'bert', words, hidden_dropout_prob=.1)
    TransformerEncoder.open(root/'bert', ModelSettings(query_length=16, passage_length=32)).save(root/'encoder')
    (root/'train.yaml').write_text(TRAINING.replace('BERT', str(root/'bert')))
    some = read_passages(toy/'psgs.tsv')
    for name, n in (('large', 4000), ('middle', 600)):
        write_passages(
            root/f'{name}.tsv',
            [
                Passage(
                    f'p{i}', f'{some[i % 160].text} {some[i * 7 % 160].text}' if i >= 160 else some[i].text,
                    f'title{i % 11}')
                for i in range(n)])
    tiny = msgspec.to_builtins(tiny_settings()) | {'recipes': ['A', 'D']}
    (root/'quick.yaml').write_text(json.dumps(tiny))
    (root/'study.yaml').write_text(
        json.dumps(tiny | {'question': 'What is left?', 'notebook': 'weights', 'recipes': ['A', 'B']}))
    (root/'folds.yaml').write_text(
        json.dumps(
            tiny
            | {
                'question': 'What adds up?', 'notebook': 'weights', 'recipes': ['A'],
                'scale': tiny['scale'] | {'folds': 2}}))
    make_study(root/'folds.yaml', root/'study')
    toy_data(root/'asked', 600)
    (root/'vectors').mkdir()
    write(root/'vectors')
    assert main(list(map(str, indexing(World(root), root/'index')))) == 0
    return World(root)


def make_study(settings:Path, out:Path):
    "A study whose models are trained, and not yet searched: what benchmarks/levers.py reads of one."
    quiet, plan = (lambda text: None), study_plan(RunStudy(study=str(settings)))
    corpus = study_data(plan.folder, out/'data', plan.settings, quiet)
    write_manifest(out/'study.json', {'plan': plan, 'corpus': str(corpus)})
    task = Task(corpus, plan.settings)
    begin_run(task, out, quiet)
    for v in plan.runs:
        (home := out/v.folder(plan.settings)/'train').mkdir(parents=True)
        train_step(home, task.part(v.fold), v, bm25_folder(out, v.fold))


def indexing(world, out):
    return [
        'build-index', '--encoder_path', world/'encoder', '--corpus_path', world/'middle.tsv', '--output_path', out,
        '--hnsw_m', 8, '--hnsw_ef_construction', 40, '--chunk_rows', 100, '--shard_rows', 100, '--cache_dir',
        world/'cache']
def embedding(world, home): return indexing(world, home/'index')
def training(world, home):
    return [
        'train-distance-aware', '--config', world/'train.yaml', '--data_dir', world/'data', '--output_dir', home/'run',
        '--cache_dir', home/'cache']
def converting(world, home):
    return [
        'bm25-eval', '--corpus_file', world/'large.tsv', '--test_file', world/'data'/'toy'/'toy-dev.json',
        '--output_path', home/'results', '--dataset_name', 'toy', '--cache_dir', home/'cache']
def sweeping(world, home):
    return [
        'run-ef-sweep', '--encoder_path', world/'encoder', '--index_path', home/'index', '--test_file',
        world/'data'/'toy'/'toy-dev.json', '--output_path', home/'results', '--ef_values', 10, 20, 40, 80, '--rounds',
        1, '--draws', 200, '--cache_dir', world/'cache']
def diagnosing(world, home):
    return [
        'diagnose', '--encoder', world/'encoder', '--corpus', world/'middle.tsv', '--queries',
        world/'data'/'toy'/'toy-dev.json', '--output_path', home/'results', '--hnsw_m', 8, '--hnsw_ef_construction', 40,
        '--cache_dir', home/'cache']
def quickstarting(world, home):
    return ['quickstart', '--config', world/'quick.yaml', '--data_dir', home/'data', '--output_dir', home/'run']
def studying(world, home):
    return ['run-study', world/'study.yaml', '--data_dir', home/'data', '--output_dir', home/'run', '--jobs', 2]
def tuning(world, home):
    return [
        'tune', *flags(world/'vectors', 'vectors', 'query_vectors', 'qrels', 'run'), '--hnsw_m', 8, '--levers', 'm',
        'stop', 'run', '--build_seconds', 1000, '--rounds', 0, '--output_path', home/'results']
def adapting(world, home):
    return [
        'adapt', '--encoder', world/'bert', '--corpus', world/'asked'/'psgs.tsv', '--queries',
        world/'asked'/'toy-train.json', '--held', .3, '--batch_size', 32, '--random_passages', 100, '--num_epochs', 20,
        '--anyway', '--output_path', home/'results', '--cache_dir', world/'cache']
def pulling(world, home):
    return [
        'levers', '--study', world/'study', '--models', 'A', '--table', home/'tables'/'levers.csv', '--best',
        home/'tables'/'best.csv', '--work', home/'work', '--questions', 20, '--draws', 10]


STAGE = 'dacl_dr.curriculum.mining:negatives_message' # called when a stage begins
COMMANDS = {c.name: c for c in (
    Command('convert', converting, 'dacl_dr.data.conversion:converted'),
    *(Command(f'train, stage {i}', training, STAGE, i, STAGE) for i in (1, 2, 3)),
    Command(
        'mine', training, 'dacl_dr.curriculum.mining:Negatives.refresh', 1,
        'dacl_dr.curriculum.mining:Negatives.refresh'),
    Command('embed', embedding, 'dacl_dr.search.indexing:embed_corpus', until='dacl_dr.search.indexing:build_index'),
    Command('build-index', embedding, 'dacl_dr.search.indexing:build_index', slow={'save_every_s': 0}),
    Command('run-ef-sweep', sweeping, 'dacl_dr.evaluation.ef_sweep:run_ef_sweep'),
    Command('diagnose', diagnosing, 'dacl_dr.evaluation.diagnosis:diagnose'),
    Command('tune', tuning, 'dacl_dr.tuning.tuner:tuned_from', constants={'dacl_dr.tuning.runner:LONG_BUILD': 0}),
    Command('adapt', adapting, 'dacl_dr.adapting.adapt:adaptation'),
    Command('levers', pulling, 'levers:all_sweeps'),
    Command('run-study', studying, 'dacl_dr.studies.study:run_study'),
    Command('quickstart', quickstarting, 'dacl_dr.studies.run:quickstart'))}


def fresh(home:Path, command:Command, world:World)->Path:
    "An empty home under the same path as before."
    if home.is_dir() and not home.is_mount(): shutil.rmtree(home)
    for f in home.iterdir() if home.is_dir() else (): shutil.rmtree(f) if f.is_dir() else f.unlink()
    home.mkdir(parents=True, exist_ok=True)
    if command.name == 'run-ef-sweep': shutil.copytree(world/'index', home/'index')
    return home


# ---- processes

def watched(command:Command, log:Path):
    "Let calls of the marks be noted with their times."
    for place, value in command.constants.items():
        setattr(importlib.import_module(place.split(':')[0]), place.split(':')[1], value)
    for place in filter(None, {command.mark, command.until}):
        module, path = place.split(':')
        *owners, name = path.split('.')
        owner = importlib.import_module(module)
        for o in owners: owner = getattr(owner, o)
        inner = partial(
            getattr(owner, name), **command.slow) if place == command.mark and command.slow else getattr(owner, name)
        def noted(*args, inner=inner, place=place, **kwargs):
            with open(log, 'a') as f: f.write(f'begin {place} {time.monotonic()}\n')
            try: return inner(*args, **kwargs)
            finally:
                with open(log, 'a') as f: f.write(f'end {place} {time.monotonic()}\n')
        original = getattr(owner, name)
        # those that imported it by name too
        for m in [owner, *(m for n, m in [*sys.modules.items()] if n.split('.')[0] in ('dacl_dr', 'levers'))]:
            for known in [k for k, v in vars(m).items() if v is original]: setattr(m, known, noted)


def program(argv, command, logs:Path, limit, clock):
    "The program in a process group of its own."
    os.setsid()
    # the bars' lock came with the fork and is every child's; one that was killed while it held it keeps it for good
    tqdm.set_lock(threading.RLock())
    signal.signal(signal.SIGINT, signal.default_int_handler) # else ignored where the tests run in the background
    for name, stream in (('out', 1), ('err', 2)):
        os.dup2(os.open(logs/name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
    if clock:
        real = time.time
        time.time = lambda: 2 * clock - real() # runs backwards
    if limit:
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    watched(command, logs/'marks')
    if command.name == 'levers':
        import levers, measuring # of benchmarks/
        sys.argv = argv
        sys.exit(measuring.in_order(levers.main))
    from dacl_dr.cli.main import main
    sys.exit(main(argv))


def in_session(stat:Path, session:int)->bool:
    try: fields = stat.read_text().rpartition(')')[2].split()
    except OSError: return False
    return int(fields[3]) == session and fields[0] != 'Z'


class Process:
    "A command at work."
    def __init__(self, command:Command, world:World, home:Path, logs:Path, limit:int=0, clock:float=0, argv=None):
        shutil.rmtree(logs, ignore_errors=True); logs.mkdir(parents=True)
        self.command, self.logs, self.begin = command, logs, time.monotonic()
        self.p = CONTEXT.Process(
            target=program, args=([str(a) for a in argv or command.argv(world, home)], command, logs, limit, clock))
        self.p.start()

    def marks(self): # [(begin or end, place, time)]
        try: return [(a, b, float(t)) for a, b, t in (l.split() for l in (self.logs/'marks').read_text().splitlines())]
        except (OSError, ValueError): return []

    def working(self): # when its work began; None: not yet
        began = [t for what, place, t in self.marks() if (what, place) == ('begin', self.command.mark)]
        return began[self.command.nth - 1] if len(began) >= self.command.nth else None

    def wait_for_work(self):
        while self.p.is_alive():
            if began := self.working(): return began
            time.sleep(.002)

    def worked(self)->float: # seconds
        c, began, marks = self.command, self.working(), self.marks()
        # until the next stage
        if c.mark == STAGE:
            return [*(t for what, place, t in marks if (what, place) == ('begin', STAGE)), self.ended][c.nth] - began
        if c.until:
            return next(
                t for what, place, t in marks
                if place == c.until and t > began and what == ('end' if c.until == c.mark else 'begin')) - began
        return self.ended - began

    def wait(self, seconds=300):
        self.p.join(seconds)
        self.ended = time.monotonic()
        if self.p.exitcode is None:
            os.killpg(self.p.pid, signal.SIGKILL)
            self.p.join()
            raise AssertionError(f'{self.command.name} hangs: {self.err()[-1500:]}')
        return self

    def alone_in_its_group(self, seconds):
        "Wait until every process of its session has ended; end those that do not."
        session = lambda: [int(f.parent.name) for f in Path('/proc').glob('[0-9]*/stat') if in_session(f, self.p.pid)]
        for _ in range(seconds * 10):
            if not (left := session()): return
            time.sleep(.1)
        for pid in left: os.kill(pid, signal.SIGKILL)
        raise AssertionError(f'{self.command.name} leaves processes: {left}')

    @property
    def code(self): return self.p.exitcode
    def out(self): return (self.logs/'out').read_text()
    # without progress bars
    def err(self):
        return '\n'.join(
            l for l in re.sub(r'[^\r\n]*\r', '', (self.logs/'err').read_bytes().decode()).splitlines()
            if l.strip('\x1b[A ') and (not re.search(r'%\||\d\w+ \[\d\d:\d\d', l) or 'dacl: ' in l))


def one_line(p:Process, code:int):
    assert p.code == code, (p.code, p.err()[-3000:])
    # else of what was read
    told = [l for l in p.err().splitlines() if not re.match(r'dacl: [\d,]+ [a-z ]+: [\d.]+% of their tokens', l)]
    assert len(told) == 1 and told[0].startswith('dacl: '), p.err()[-3000:]


# ---- results

LITTER = re.compile(r'\.partial$|\.old$|^tmp|\.tmp$|\.ipynb$(?<=\.\d\.ipynb)')

def content(path:Path):
    "What of a file must be equal, and fails if it is cut."
    kind = path.suffix
    if path.parent.name == 'tried' and kind == '.json': float(path.read_text()); return None # seconds
    if kind in ('.trial', '.state'):
        with safe_open(path, 'np') as f:
            return {
                k: hashlib.sha256(f.get_tensor(k).tobytes()).hexdigest() for k in f.keys()
            } | {k: re.sub(r'"seconds":[^,}]+', '', v) for k, v in f.metadata().items()}
    if kind in ('.json', '.csv', '.parquet'): # digests in a manifest cover times; the files themselves are compared
        return {
            k: v for k, v in values_of(path).items()
            if path.name != 'manifest.json' or not re.match(r'files\.|sources\.\d+\.mtime_ns$', k)
            and (path.parent.name != 'report' or not re.match('key|made_from', k))}
    if kind == '.npy': return hashlib.sha256(np.load(path).tobytes()).hexdigest()
    if kind == '.safetensors': return {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in load_file(path).items()}
    if kind == '.arrow':
        return hashlib.sha256(
            pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_string().encode() + path.read_bytes()).hexdigest()
    if kind == '.html': assert path.read_text().endswith('</html>'), f'{path} is cut'; return None
    if kind == '.ipynb': json.loads(path.read_text()); return None
    if kind == '.md': return re.sub(r'\d+\.?\d* \|$', '', path.read_text(), flags=re.M) # the last column is seconds
    return hashlib.sha256(path.read_bytes()).hexdigest()

def files(home:Path)->dict[str, Path]:
    return {
        str(f.relative_to(home)): f for f in sorted(home.rglob('*')) if f.is_file() and not f.name.endswith('.lock')}

def visible(name): return not any(re.match(r'\..+\.(partial|old)$', part) for part in Path(name).parts)

def results(home:Path)->dict: return {n: content(f) for n, f in files(home).items()}

def room(home:Path)->int: return sum(f.stat().st_size // 4096 + 1 for f in home.rglob('*')) # pages of 4 KiB

def litter(home:Path)->list[str]: return [str(f.relative_to(home)) for f in home.rglob('*') if LITTER.search(f.name)]

def same_results(home:Path, whole:dict):
    assert not litter(home), litter(home)
    found = results(home)
    assert found.keys() == whole.keys(), (sorted(found.keys() - whole.keys()), sorted(whole.keys() - found.keys()))
    differ = [n for n in whole if found[n] != whole[n]]
    assert not differ, (differ, [(whole[n], found[n]) for n in differ[:1]])
