"""Damaged inputs by the thousand, read in worker processes that may crash. `python tests/fuzz/campaign.py NAME N`
repeats one case with its traceback."""
import faulthandler, json, os, random, resource, shutil, subprocess, sys, tempfile, time, traceback
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
SECONDS, MEMORY = 10, 2 << 30 # that one input may take

def files_of(reader, home): return sorted({f for pattern in reader.files for f in home.glob(pattern) if f.is_file()})

def outcome(reader, home, f, sound, what):
    "'correct', 'refused', or 'failed: why'."
    from dacl_dr.core.errors import DaclError
    try: found = reader.read(home)
    except DaclError as e:
        text = str(e)
        if len(text.splitlines()) != 1 or not text.isprintable():
            return f'failed: message is not one printable line: {text[:300]!r}'
        names = [
            f.name, *(p.name for p in f.relative_to(home).parents if p.name),
            *([home.name] if 'no_parent' in what else []), *reader.settings]
        return 'refused' if any(n in text for n in names) else f'failed: message names no file: {text[:300]!r}'
    except BaseException as e: return f'failed: {type(e).__name__}: {str(e)[:200]!r} at {place(e)}'
    try: wrong = reader.judge(home, found, sound)
    except Exception as e:
        wrong = f'accepted, but the independent count cannot be made ({type(e).__name__}: {str(e)[:120]})'
    return f'failed: {wrong}' if wrong else 'correct'

def place(e):
    at = [s for s in traceback.extract_tb(e.__traceback__) if 'dacl_dr/' in s.filename]
    return f'{Path(at[-1].filename).name}:{at[-1].lineno}' if at else '?'

def case(reader, n, seed, good, sound, work):
    "One damaged input: (what was done to which file, outcome)."
    from mutations import damage
    r, home = random.Random(f'{seed}/{reader.name}/{n}'), work/'case'
    shutil.rmtree(home) if home.is_dir() else home.unlink(missing_ok=True)
    shutil.copytree(good, home)
    f = r.choice(files_of(reader, home))
    what = f'{damage(f, r)} of {f.relative_to(home)}'
    return what, outcome(reader, home, f, sound, what)

def prepared(name, work):
    from readers import READERS
    reader, good = READERS[name], work/'good'
    good.mkdir(parents=True)
    reader.make(good)
    shutil.copytree(good, work/'case') # results may name the folder they are read from
    sound = reader.read(work/'case')
    assert not (wrong := reader.judge(work/'case', sound, sound)), f'{name}, undamaged: {wrong}'
    return reader, good, sound

def address_space():
    return int(
        Path('/proc/self/statm').read_text().split()[0]
    ) * os.sysconf('SC_PAGE_SIZE') if os.path.exists('/proc/self/statm') else 8 << 30

def work_on(name, first, last, seed, log):
    "In a process of its own: a line before and after each case."
    with tempfile.TemporaryDirectory(prefix='fuzz-') as tmp, open(log, 'a', buffering=1) as out:
        reader, good, sound = prepared(name, Path(tmp)/'w')
        resource.setrlimit(resource.RLIMIT_AS, (limit := address_space() + MEMORY, limit))
        for n in range(first, last):
            print(json.dumps({'n': n}), file=out)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            start = time.perf_counter()
            what, how = case(reader, n, seed, good, sound, Path(tmp)/'w')
            faulthandler.cancel_dump_traceback_later()
            print(
                json.dumps({'n': n, 'what': what, 'outcome': how, 'seconds': round(time.perf_counter() - start, 3)}),
                file=out)

def run_reader(name, tried, seed, folder):
    "All cases of a reader, whatever crashes on the way: (outcomes, failures, seconds)."
    log, errors, start = folder/f'{name}.jsonl', folder/f'{name}.err', time.perf_counter()
    counts, failures, n = Counter(), [], 0
    environment = os.environ | {
        'OMP_NUM_THREADS': '1', 'TOKENIZERS_PARALLELISM': 'false', 'HF_HUB_OFFLINE': '1',
        'PYTHONPATH': str(HERE.parents[1])}
    while n < tried:
        log.write_text('')
        with open(errors, 'w') as err:
            code = subprocess.run(
                [sys.executable, __file__, '--work', name, str(n), str(tried), str(seed), str(log)], stdout=err,
                stderr=err, env=environment).returncode
        rows = [json.loads(l) for l in log.read_text().splitlines()]
        for row in rows:
            if 'outcome' not in row: continue
            counts[row['outcome'].split(':')[0]] += 1
            if row['outcome'].startswith('failed'): failures.append(row)
        if not rows: raise RuntimeError(f'{name}: {errors.read_text()[-2000:]}')
        n = rows[-1]['n'] + 1
        if 'outcome' not in rows[-1]:
            counts['failed'] += 1
            failures.append({
                'n': n - 1, 'what': '?',
                'outcome': f'failed: the process ended with {code}: {errors.read_text()[-600:]}'})
    return counts, failures, time.perf_counter() - start

def again(name, n, seed=0):
    "One case once more, its traceback not caught."
    work = Path(tempfile.mkdtemp(prefix='fuzz-'))/'w'
    reader, good, sound = prepared(name, work)
    print(*case(reader, n, seed, good, sound, work), sep='\n')
    print(f'the damaged files stand in {work}/case')
    found = reader.read(work/'case')
    print(str(found)[:1500], '\nsound:', str(sound)[:1500])

if __name__ == '__main__':
    if sys.argv[1] == '--work': work_on(sys.argv[2], *map(int, sys.argv[3:6]), sys.argv[6])
    else: again(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
