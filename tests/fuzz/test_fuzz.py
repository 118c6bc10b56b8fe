"The campaign of damaged inputs: every reader gives the right result, or one line that names the file."
import csv, json, os, shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest, yaml
from hypothesis import HealthCheck, given, settings, strategies as st

from campaign import outcome, prepared, run_reader
from readers import READERS

from dacl_dr.core.files import seal_of

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT/'nbs'/'experiments'/'results'/'fuzz.csv'
SEED = int(os.environ.get('FUZZ_SEED', 0)) # another one searches further


def told(failures): return '\n'.join(f"{f['n']}: {f['what']}: {f['outcome']}" for f in failures)


def test_a_few_hundred_damaged_inputs(tmp_path):
    for name in ('passage TSV', 'biencoder JSON', 'settings of a training'):
        counts, failures, _ = run_reader(name, 100, 12345, tmp_path)
        assert not failures, f'{name}\n{told(failures)}'
        assert sum(counts.values()) == 100, f'{name}\n{told(failures)}'
        assert counts['correct'], f'{name}\n{told(failures)}'
        assert counts['refused'], f'{name}\n{told(failures)}'


@pytest.mark.slow
def test_the_campaign(tmp_path):
    with ThreadPoolExecutor(int(os.environ.get('FUZZ_WORKERS', 2))) as pool:
        done = dict(zip(READERS, pool.map(lambda r: run_reader(r.name, r.tried, SEED, tmp_path), READERS.values())))
    rows = [
        [name, sum(counts.values()), *(counts[k] for k in ('correct', 'refused', 'failed'))]
        for name, (counts, _, _) in done.items()]
    header, total = ['reader', 'tried', 'correct', 'refused', 'failed'], [
        'all', *(sum(r[i] for r in rows) for i in range(1, 5))]
    today = date.today().isoformat()
    for row in (header, *rows, total): print(f'{row[0]:<34}' + ''.join(f'{v:>9}' for v in row[1:]))
    failures = [f'{name} {told([f])}' for name, (_, fs, _) in done.items() for f in fs]
    if SEED == 0:
        with open(TABLE, 'w', newline='') as f:
            csv.writer(f, lineterminator='\n').writerows([[*header, 'date'], *([*r, today] for r in [*rows, total])])
    assert not failures, '\n'.join(failures)
    assert total[1] >= 20_000


# --- contents that no sound file is near
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | st.text(max_size=9),
    lambda x: st.lists(x, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            'question', 'positive_ctxs', 'answers', 'passage_id', '_id', 'text', 'title', 'key', 'files', 'step',
            'plan', 'settings', 'w', 'training', 'stages', 'name', 'recipe', 'rows', 'seal', 'dataset', 'corpus', 'id',
            'contents', 'query', 'positive_passages', 'docid', 'data', 'paragraphs', 'context', 'qas'])
        | st.text(max_size=4),
        x, max_size=4),
    max_leaves=12)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)
SEARCH = settings(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    made = {}
    def get(name): # a reader with its sound files
        if name not in made: made[name] = (work := tmp_path_factory.mktemp('sound')/'w', prepared(name, work))
        return made[name]
    return get


def read_with(sound, name, file, content):
    "What a reader does with a file of this content."
    work, (reader, good, result) = sound(name)
    home = work/'case'
    shutil.rmtree(home); shutil.copytree(good, home)
    f = next(home.glob(file))
    f.write_bytes(content)
    how = outcome(reader, home, f, result, '')
    assert not how.startswith('failed'), f'{name}, {file}: {how}'


WRONG = { # reader → its result, wrong
    'Python source': lambda found: found[:-1],
    'plan of a study': lambda found: ['another', *found[1:]],
    'sweep of a run': lambda found: [found[0], {n: v + 1 for n, v in found[1].items()}, found[2]],
    'dacl preprocess-dpr': lambda found: (1, found[1]),
    'dacl bm25-eval': lambda found: (0, found[1].replace('9 passages', '8 passages')),
    'dacl run-study --dry_run': lambda found: (0, found[1].replace(' runs:', '0 runs:')),
}

@pytest.mark.parametrize('name', WRONG)
def test_a_wrong_result_is_seen(sound, name):
    work, (reader, _, result) = sound(name)
    assert not reader.judge(work/'case', result, result) and reader.judge(work/'case', WRONG[name](result), result)
    if name != 'dacl preprocess-dpr': return
    with open(work/'case'/'data'/'psgs.tsv', 'a') as f: f.write('p10\tone more\tTitle\n')
    assert reader.judge(work/'case', result, result) == '9 passages counted, 10 are there'


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, file', [('biencoder JSON', 'x-train.json'), ('question TSV with gold file', 'x-test-gold.json')])
@given(st.lists(VALUES, max_size=4))
@SEARCH
def test_arrays_of_anything(sound, name, file, records): read_with(sound, name, file, json.dumps(records).encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, file',
    [
        ('BEIR folder', 'set/corpus.jsonl'), ('BEIR folder', 'set/queries.jsonl'), ('Pyserini', 'docs.jsonl'),
        ('Tevatron', 'train.jsonl'), ('raw Natural Questions', 'nq.jsonl')])
@given(st.lists(VALUES, max_size=4))
@SEARCH
def test_lines_of_anything(sound, name, file, records):
    read_with(sound, name, file, b''.join(json.dumps(r).encode() + b'\n' for r in records))


@pytest.mark.slow
@given(st.lists(VALUES, max_size=4))
@SEARCH
def test_articles_of_anything(sound, articles):
    read_with(sound, 'SQuAD', 'x-dev.json', json.dumps({'data': articles}).encode())


@pytest.mark.slow
@pytest.mark.parametrize('sealed', [False, True])
@pytest.mark.parametrize(
    'name, file',
    [
        ('manifest of a step', 'step/manifest.json'), ('index', 'index/manifest.json'),
        ('embedding shards', 'vectors/manifest.json'), ('plan of a study', 'study/study.json'),
        ('recipe of a run', 'run/recipe.json'), ('result tables, published', 'run/run.json'),
        ('checkpoints', 'checkpoints/step-000002/manifest.json')])
@given(VALUES)
@SEARCH
def test_manifests_of_anything(sound, name, file, sealed, value):
    "Also with a seal that fits, as another program might write it."
    if sealed and isinstance(value, dict):
        value = value | {'seal': seal_of({k: v for k, v in value.items() if k != 'seal'})}
    read_with(sound, name, file, json.dumps(value).encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, file', [('settings of a training', 'recipe.yaml'), ('layers of a study', 'studies.yaml')])
@given(VALUES)
@SEARCH
def test_settings_of_anything(sound, name, file, value):
    read_with(sound, name, file, yaml.safe_dump(value, allow_unicode=True).encode(errors='surrogatepass'))


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, file, head',
    [
        ('passage TSV', 'psgs.tsv', 'id\ttext\ttitle\n'), ('question TSV with gold file', 'x-test.csv', ''),
        ('BEIR folder', 'set/qrels/test.tsv', ''), ('collection.tsv', 'collection.tsv', ''),
        ('MS MARCO queries and qrels', 'queries.dev.tsv', ''), ('TREC topics and qrels', 'qrels.txt', ''),
        ('TREC topics and qrels', 'topics.txt', '<top><num> 0 <title>'), ('judgements by id', 'q.ids', ''),
        ('judgements by id', 'qrels.txt', ''), ('plain texts', 'texts.txt', ''),
        ('settings of a training', 'recipe.yaml', ''), ('Python source', 'code.py', '')])
@given(st.text(alphabet='ab1\t\n\r"\'[]{}:,-&*#\\ ü\0\u2028\ufeff', max_size=60))
@SEARCH
def test_texts_of_anything(sound, name, file, head, text): read_with(sound, name, file, (head + text).encode())
