"Ways to damage a file, each drawn by a seeded generator."
import bz2, gzip, json, random, re, shutil, struct
from pathlib import Path

WORDS = {
    'text': [
        b'\0', b'\xff', b'\xc3', b'\xed\xa0\x80', b'\xef\xbb\xbf', b'\r', b'\r\n', b'\n', b'\n\n', b'\t', b'"', b'""',
        b"'", b'\\', b'\x1b[2J', '\u2028'.encode(), '\u0663'.encode(), b'../../x', b'/etc/passwd',
        b'9' * 30, b'9' * 5000, b'-1', b'1e999', b'NaN', b'Infinity', b'1e-400', b'0x1F', b'true', b'null',
        b'[' * 5000, b'(' * 500, b' ' * 300, b'a' * 70_000],
    'json': [
        b'{', b'}', b'[', b']', b',', b':', b'"\\ud800"', b'"\\u0000"', b'NaN', b'-Infinity', b'{"a":' * 3000,
        b'[' * 100_000, b'1' * 5000, b'null', b'[]', b'{}', b'""', b'0', b'-1', b'1.5', b'true', b'"question":',
        b'"_id":1,', b'"key":', b'"files":3'],
    'yaml': [
        b'&a ', b'*a', b'!!python/object/apply:os.system ["true"]', b'!!timestamp x', b'!!int x', b'!!int ""',
        b'!!bool maybe', b'!!float x', b'!!binary x', b'!!set {a, b}', b'!!omap [a: 1]', b'<<: *a', b'? [1]\n: 2\n',
        b'? {a: 1}\n: 2\n', b'---\n', b'...\n', b'%YAML 9.9\n---\n', b'{', b']',
        b': ', b'- ', b'|\n', b'>\n', b'.nan', b'.inf', b'-.inf', b'2001-13-45', b'2001-01-01', b'0o17', b'1:30',
        b'~', b'#', b'    ', b'\t', b'[' * 3000, b'{a: ' * 2000, b'1: 2\n', b'null: 1\n', b'? \n',
        b'a: &a [x]\n' + b''.join(b'%c: &%c [*%c]\n' % (i + 1, i + 1, i) for i in range(97, 120)),
        b'a: &a {x: 1}\n'
        + b''.join(b'%c: &%c {p: *%c, q: *%c, r: *%c}\n' % (i + 1, i + 1, i, i, i) for i in range(97, 120)),
        b'a: &a {x: 1}\n'
        + b''.join(b'%c: &%c {<<: [%s]}\n' % (i + 1, i + 1, b', '.join([b'*%c' % i] * 9)) for i in range(97, 110)),
        b'zz: &z {y: *z}\n'],
    'binary': [
        b'\0' * 8, b'\xff' * 8, struct.pack('<q', -1), struct.pack('<Q', 1 << 40), struct.pack('<Q', 1 << 62),
        struct.pack('<i', 2**31 - 1), struct.pack('<f', float('nan')), struct.pack('<d', float('inf')), b'PAR1',
        b'ARROW1', b'\x93NUMPY']}
VALUES = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1.5, -1e308, float('nan'), float('inf'), '', 'x', '../../x',
    '/dev/zero', 'a\nb', 'a\0b', '\ud800', ' ', [], [1], ['x'], [None], {}, {'a': 1}, [[]], 'a' * 5000]



# --- packed files
def zstd(data):
    import pyarrow as pa
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, 'zstd') as f: f.write(data)
    return out.getvalue().to_pybytes()

def unzstd(data):
    import pyarrow as pa
    with pa.CompressedInputStream(pa.BufferReader(data), 'zstd') as f: return f.read()

PACKINGS = {
    '.gz': (lambda d: gzip.compress(d, 1), gzip.decompress), '.bz2': (bz2.compress, bz2.decompress),
    '.zst': (zstd, unzstd)}
def packed(data, suffix): return PACKINGS[suffix][0](data)
def unpacked(f):
    "The bytes of a file, out of its packing."
    data = f.read_bytes()
    return PACKINGS[f.suffix][1](data) if f.suffix in PACKINGS else data


# --- bytes
def flip(d, r):
    b = bytearray(d)
    for _ in range(r.choice((1, 1, 1, 3, 20))): b[r.randrange(len(b))] ^= 1 << r.randrange(8)
    return bytes(b)
def part(d, r, most=40):
    i = r.randrange(len(d))
    return i, min(len(d), i + r.choice((1, 1, 2, 4, 8, r.randint(1, most))))
def drop(d, r): i, j = part(d, r); return d[:i] + d[j:]
def double(d, r): i, j = part(d, r, 200); return d[:j] + d[i:j] * r.choice((1, 1, 3)) + d[j:]
def noise(d, r): i, j = part(d, r); return d[:i] + r.randbytes(j - i) + d[j:]
def cut(d, r): return d[:r.randrange(len(d))]
def behead(d, r): return d[r.randrange(len(d)):]
def append(d, r): return d + r.choice((b'\0', b'\n', d, d[:50], r.randbytes(30)))
def zeros(d, r): i, j = part(d, r, 500); return d[:i] + b'\0' * (j - i) + d[j:]
BYTES = (flip, flip, drop, double, noise, cut, behead, append, zeros)

# --- lines and words of a text
def lines(d): return d.split(b'\n')
def line_swap(d, r):
    ls = lines(d); i, j = r.randrange(len(ls)), r.randrange(len(ls)); ls[i], ls[j] = ls[j], ls[i]; return b'\n'.join(ls)
def line_double(d, r): ls = lines(d); i = r.randrange(len(ls)); return b'\n'.join(ls[:i + 1] + ls[i:])
def line_drop(d, r): ls = lines(d); i = r.randrange(len(ls)); return b'\n'.join(ls[:i] + ls[i + 1:])
def crlf(d, r): return d.replace(b'\n', b'\r\n') if r.random() < .5 else d.replace(b'\n', b'\r')
def bom(d, r): return r.choice((b'\xef\xbb\xbf', b'\xff\xfe', b'\xef\xbb\xbf\xef\xbb\xbf')) + d
def utf16(d, r): return d.decode(errors='replace').encode(r.choice(('utf-16', 'utf-16-le', 'utf-32')))
def quote(d, r):
    at = [m.start() for m in re.finditer(rb'["\']', d)] or [r.randrange(len(d))]
    i = r.choice(at)
    return r.choice((d[:i] + d[i + 1:], d[:i] + b'"' + d[i:], d[:i] + b'\\' + d[i:], d[:i] + b'"\t' + d[i:]))
def tab(d, r):
    at = [m.start() for m in re.finditer(rb'\t', d)] or [r.randrange(len(d))]
    i = r.choice(at)
    return r.choice((d[:i] + d[i + 1:], d[:i] + b'\t' + d[i:], d[:i] + b' ' + d[i + 1:], d[:i] + b'\n' + d[i + 1:]))
def number(d, r):
    at = list(re.finditer(rb'-?\d+(\.\d+)?', d))
    if not at: return flip(d, r)
    m = r.choice(at)
    return d[:m.start()] + r.choice((
        b'-' + m[0], b'9' * 25, b'9' * 5000, b'1e999', b'NaN', b'', b'0', b'1.5', b'x', m[0] * 3, '\u0663'.encode()
    )) + d[m.end():]
TEXT = (line_swap, line_double, line_drop, crlf, bom, utf16, quote, tab, number)

def word(kind):
    def insert(d, r):
        known = WORDS['text'] + WORDS.get(kind, []) * 2 if kind != 'binary' else WORDS['binary']
        i, j = part(d, r)
        if r.random() < .5:
            i = r.choice([0, len(d), *(m.start() for m in re.finditer(rb'[\n\t,:]', d[:100_000]))])
            j = i + r.choice((0, 0, 1))
        return d[:i] + r.choice(known) + d[j if r.random() < .5 else i:]
    return insert

# --- trees
def places(tree, at=()):
    yield at
    for k, v in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(v, (*at, k))

def change(tree, r):
    "One change of a tree of dicts and lists: a value, a type, a key."
    at = r.choice(list(places(tree)))
    if not at: return r.choice(VALUES + [[tree], {'a': tree}])
    holder = tree
    for k in at[:-1]: holder = holder[k]
    k, what = at[-1], r.randrange(6)
    if isinstance(holder, list):
        if what == 0: del holder[k]
        elif what == 1: holder.insert(k, holder[k])
        elif what == 2: holder[k] = [holder[k]]
        else: holder[k] = r.choice(VALUES)
    elif what == 0: del holder[k]
    elif what == 1: holder[r.choice((k + 'x', k.upper(), '', '../x', 'a\nb'))] = holder.pop(k)
    elif what == 2: holder[k] = str(holder[k]) if not isinstance(holder[k], str) else [holder[k]]
    elif what == 3: holder[r.choice(('extra', 'key', 'files', 'id'))] = r.choice(VALUES)
    else: holder[k] = r.choice(VALUES)
    return tree

def json_tree(d, r):
    try: tree = json.loads(d)
    except ValueError: return flip(d, r)
    for _ in range(r.choice((1, 1, 2))): tree = change(tree, r)
    return json.dumps(tree, ensure_ascii=True, indent=r.choice((None, 1))).encode()

def json_line(d, r):
    ls = [l for l in lines(d) if l.strip()]
    if not ls: return d + b'{}'
    i = r.randrange(len(ls)); ls[i] = json_tree(ls[i], r)
    return b'\n'.join(ls) + b'\n'

def double_key(d, r):
    at = list(re.finditer(rb'"\w+"\s*:\s*("[^"]*"|\d+)', d))
    if not at: return double(d, r)
    m = r.choice(at)
    return d[:m.start()] + m[0] + b', ' + d[m.start():]

def yaml_tree(d, r):
    import yaml
    try: tree = yaml.safe_load(d)
    except Exception: return flip(d, r)
    tree = change(tree, r)
    return yaml.safe_dump(
        tree, sort_keys=False, default_flow_style=r.choice((None, True)), allow_unicode=True
    ).encode(errors='surrogatepass')

# --- headers of binary formats
def npy_header(d, r):
    n = struct.unpack('<H', d[8:10])[0]
    head = d[10:10 + n].decode('latin1')
    say = r.choice(
        (
            ("'<f4'", r.choice(("'<f8'", "'<i4'", "'|O'", "'>f4'", "'<c8'", "'|V4'", "'<U1'", "'|b1'"))),
            ("'<f2'", "'<i2'"), ("'<i8'", r.choice(("'<u8'", "'|O'", "'<f8'", "'>i8'"))), ('False', 'True'),
            (
                re.search(r'\(.*\)', head)[0],
                r.choice((
                    '()', '(1,)', '(-1, 8)', '(0, 8)', '(8, 0)', f'({2**40}, {2**20})', '(2, 2, 2)', f'({2**62},)',
                    '(1.5, 2)', "('a',)"))),
            ('descr', 'descrx'), ('{', '{' * 200), ('shape', 'os'), (head, '__import__("os")'.ljust(n)),
            (head, '(' * n)))
    new = head.replace(*say)
    new = new.strip()[:max(0, 65_000)].ljust(n - 1) + '\n'
    return d[:8] + struct.pack('<H', len(new)) + new.encode('latin1') + d[10 + n:]

def tensors_header(d, r):
    n = struct.unpack('<Q', d[:8])[0]
    if r.random() < .2: return struct.pack('<Q', r.choice((0, 1, n - 1, n + 1, 1 << 40, 2**64 - 1))) + d[8:]
    head = json_tree(d[8:8 + n], r)
    return struct.pack('<Q', len(head)) + head + d[8 + n:]

OF_KIND = {
    'json': (json_tree,) * 6 + (double_key, word('json'), word('json')) + TEXT,
    'jsonl': (json_line,) * 6 + (double_key, word('json'), word('json')) + TEXT,
    'tsv': (quote, tab, quote, tab, word('text'), word('text')) + TEXT,
    'yaml': (yaml_tree,) * 6 + (word('yaml'),) * 6 + TEXT, 'txt': (word('text'),) * 3 + TEXT,
    'npy': (npy_header,) * 5 + (word('binary'),), 'safetensors': (tensors_header,) * 5 + (word('binary'),),
    'binary': (word('binary'),) * 2}

def kind_of(name):
    if Path(name).suffix in PACKINGS: name = Path(name).stem
    ext = name.rpartition('.')[2]
    return {
        'csv': 'tsv', 'yml': 'yaml', 'py': 'txt', 'ids': 'txt'
    }.get(ext, ext) if ext in (*OF_KIND, 'csv', 'yml', 'py', 'ids') else 'binary'

def mutate(data:bytes, kind:str, r:random.Random)->tuple[str, bytes]: # what was done, the damaged bytes
    "Damage bytes once, now and then twice."
    done = []
    for _ in range(r.choice((1, 1, 1, 1, 2))):
        if not data: break
        how = r.choice(OF_KIND[kind]) if r.random() < .7 else r.choice(BYTES)
        try: new = how(data, r)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
            how, new = flip, flip(data, r)
        done.append(how.__name__); data = new
    return '+'.join(done), data

# --- places
def empty(f): f.write_bytes(b'')
def gone(f): f.unlink()
def folder(f): f.unlink(); f.mkdir()
def full_folder(f): f.unlink(); (f/'x').mkdir(parents=True)
def dangling(f): f.unlink(); f.symlink_to('nowhere')
def circle(f): f.unlink(); f.symlink_to(f.name)
def no_parent(f): d = f.parent; shutil.rmtree(d); d.write_bytes(b'x')
PLACES = (empty, gone, folder, full_folder, dangling, circle, no_parent)

def damage(f, r)->str: # what was done
    "Damage a file in place, or what stands in its place."
    if r.random() < .04:
        how = r.choice(PLACES); how(f)
        return how.__name__
    if f.suffix in PACKINGS and r.random() < .02: # little that unpacks to three gigabytes without a line end
        f.write_bytes(f.read_bytes() + packed(b'0' * (1 << 26), f.suffix) * 48)
        return 'bomb'
    data = f.read_bytes()
    if f.suffix in PACKINGS and r.random() < .5:
        what, new = mutate(unpacked(f), kind_of(f.name), r); new = packed(new, f.suffix)
    else: what, new = mutate(data, 'binary' if f.suffix in PACKINGS else kind_of(f.name), r)
    f.write_bytes(new)
    return what
