"What nbdev makes of the notebooks: the reference, links of names, and what would be fetched from elsewhere."
import collections, os, re, subprocess, sys
from pathlib import Path

from .pages import FENCE, Part, anchors, blank, cells_of, heading_anchors, parts, site_pages, text_of

PROCESS = Path(__file__).with_name('process.py')
LONGEST = 120 # columns of a line of a signature
MACHINE = (':NoneType', '__main__.', 'object at 0x', '<factory>', '&lt;factory&gt;')
FETCHED = re.compile(
    r'<(?:script|link|img|iframe|source|video|audio)\b[^>]*?\b(?:src|href)=["\']?(?:https?:)?//([^/"\'\s>]+)'
    r'|(?:\bfrom|\bimport\b\(?|@import|\burl\()\s*["\']?https?://([^/"\'\s)]+)', re.I,
)


def shown_names(page):
    "What `show_doc` has written on a processed page."
    for i, c in enumerate(cells_of(page)):
        if 'show_doc(' not in text_of(c['source']): continue
        for o in c.get('outputs', []):
            text = text_of(o.get('data', {}).get('text/markdown', ''))
            if text: yield Part(page, i, 'output', text)

def title_of(part): return (re.findall(r'^#+ ([\w.]+)', part.text, re.M) or ['?'])[0]

def signature_of(part): return '\n'.join(m[4] for m in FENCE.finditer(part.text) if m[3] == 'python')

def signature_faults(root, page):
    "Signatures that tell a reader nothing, or show how they were made."
    for p in shown_names(page):
        name, signature = title_of(p), signature_of(p)
        empty = re.search(r'\(\s*\*args,\s*\*\*kwargs,?\s*\)', signature)
        struct = re.search(r'^class \w+\([^)]*\b(?:Struct|NamedTuple)\b', signature)
        if empty or struct and '<caption>Fields' not in p.text and ':' in struct_body(root, p, name):
            remedy = 'settings.ini must name dacl_dr.report.reference.Reference as renderer'
            yield p.fault(root, 0, f'{name} shows no fields', remedy)
        if re.search(r'\]\([^)\s]*(?:\.html|#|//)', signature):
            remedy = 'settings.ini must have skip_procs = add_links'
            yield p.fault(root, 0, f'raw Markdown in the signature of {name}', remedy)
        for mark in MACHINE:
            if mark not in p.text: continue
            remedy = 'give the parameter a type or a default that can be read'
            yield p.fault(root, 0, f"'{mark}' in what is shown of {name}", remedy)
        if max(map(len, signature.split('\n'))) > LONGEST:
            what = f'the signature of {name} has a line of more than {LONGEST} columns'
            yield p.fault(root, 0, what, 'name the default or the type')

def source_of(root, part):
    "The file, line number and line that the source link of a name leads to; None without a link."
    m = re.search(r'\]\([^)\s]*/blob/[^/]+/([^#)\s]+)(?:#L(\w+))?\)', part.text)
    if not m: return None
    path = root/m[1]
    lines = path.read_text(encoding='utf-8').split('\n') if path.is_file() else []
    number = int(m[2]) if (m[2] or '').isdigit() else 0
    return m[1], m[2], lines[number - 1] if 0 < number <= len(lines) else ''

def struct_body(root, part, name):
    "The lines of a class up to its first method, as far as the source link leads to it."
    found = source_of(root, part)
    if not found or not found[2]: return ''
    below = (root/found[0]).read_text(encoding='utf-8').split('\n')[int(found[1]):]
    end = next((i for i, l in enumerate(below) if re.match(r'\S|\s+(def|@)', l)), len(below))
    return '\n'.join(re.findall(r'^\s+\w+\s*:.*', '\n'.join(below[:end]), re.M))

def source_faults(root, page):
    "Source links that do not lead to the definition."
    for p in shown_names(page):
        name, found = title_of(p), source_of(root, p)
        if found is None:
            yield p.fault(root, 0, f'{name} has no link to its source', 'export it, and run nbdev_export')
        elif not re.match(rf'\s*(?:async def|def|class) {re.escape(name.split(".")[-1])}\b', found[2]):
            what = f'the source link of {name} leads to {found[0]}#L{found[1]}, which does not define it'
            yield p.fault(root, 0, what, 'run nbdev_export')

def leads_nowhere(root, page, path, anchor):
    "Does a link from a processed page lead to no page, or to an anchor that it has not?"
    target = page if not path else page.parent/path.replace('.html', '.ipynb')
    target = type(page)(os.path.normpath(target))
    if target.suffix == '.ipynb' and target.is_file():
        return not {anchor, anchor.rpartition('.')[0]} & anchors(target)
    return not (target.with_suffix('.md').is_file() or target.with_suffix('.qmd').is_file())

def name_faults(root, page):
    "Links to functions and classes, made from names in backticks, that lead nowhere; for a method its class will do."
    for p in parts(page):
        if p.kind == 'code': continue
        links = re.findall(r'(?:\]\(|href=")((?:[\w./-]+\.html)?)#([\w.-]+)', without_code(p.text))
        for path, anchor in sorted(set(links)):
            if not leads_nowhere(root, page, path, anchor): continue
            link = f'{path or page.with_suffix(".html").name}#{anchor}'
            what = f'the link of a name leads to {link}, which the site has not'
            yield p.fault(root, 0, what, 'name something that is shown, or use no backticks')

def twin_anchors(root, page):
    "Two headings with one anchor, of which only the first can be reached."
    found = [(a, p) for p in parts(page) if p.kind != 'code' for a in heading_anchors(page, blank(FENCE, p.text))]
    count = collections.Counter(a for a, p in found if p.kind == 'output')
    given = {a for a, p in found if p.kind == 'output'}
    count.update({a for a, p in found if p.kind == 'markdown' and a in given})
    for anchor, p in found:
        if p.kind == 'output' and count[anchor] > 1:
            yield p.fault(root, 0, f'a heading takes the anchor #{anchor} too', 'give the heading another name')

def without_code(text):
    "Markdown but for what is shown as code; HTML stays."
    text = blank(r'^(```+|~~~+)(?!\{=html\}).*?^\1', text, re.M | re.S)
    return blank(r'(?<!`)`[^`\n]+`(?!`)', text)

def html_of(cell):
    "What a cell puts into the page as it is: its outputs, and its text but for what is shown as code."
    data = [o.get('data', {}) for o in cell.get('outputs', [])]
    found = [text_of(d[kind]) for d in data for kind in ('text/html', 'text/markdown') if kind in d]
    if cell['cell_type'] == 'markdown': found.append(without_code(text_of(cell['source'])))
    return '\n'.join(found)

def host_faults(root, page):
    "What a browser would fetch from another host while it shows the page."
    for i, c in enumerate(cells_of(page)):
        for host in sorted({m[1] or m[2] for m in FETCHED.finditer(html_of(c))}):
            part = Part(page, i, c['cell_type'], '')
            yield part.fault(root, 0, f'the page would fetch from {host}', 'serve the file from the site')

def chart_faults(root, page):
    "Charts that are still data."
    if '"application/vnd.vegalite' not in page.read_text(encoding='utf-8'): return
    remedy = 'settings.ini must name dacl_dr.report.notebook:live_charts among procs'
    yield f'{page.relative_to(root)}: a chart is not live: {remedy}'

def table_faults(root, page):
    "Tables among the outputs that no caption names."
    for i, c in enumerate(cells_of(page)):
        if c['cell_type'] != 'code': continue
        for table in re.findall(r'<table\b.*?</table>', html_of(c), re.S):
            if '<caption' in table: continue
            yield Part(page, i, 'code', '').fault(
                root, 0, 'a table has no caption', 'give its cell `#| tbl-cap: words`')

# each takes the root and a processed page and yields faults; add more here
CHECKS = (chart_faults, table_faults, signature_faults, source_faults, name_faults, twin_anchors, host_faults)


def failed(root, said):
    "The line for a page that nbdev cannot process."
    where = re.findall(r'Error in notebook: (.+?) in cell (\d+)', said)
    why = re.findall(
        r'^(?:[\w.]+\.)?(\w*(?:Error|Exception)): (.+)$', said, re.M) or [('', said.strip().splitlines()[-1])]
    titled = [
        p for p in site_pages(root)
        if where and p.suffix == '.ipynb' and text_of(cells_of(p)[0]['source']).startswith(f'# {where[-1][0]}\n')
    ]
    page = titled[0] if titled else root/'nbs'
    return (
        f"{page.relative_to(root)}: cell {where[-1][1] if where else '?'}: nbdev cannot process it, "
        f"{': '.join(why[0]).strip(': ')}: what show_doc prints must be defined by exported cells before it"
    )

def process(root):
    "Send every notebook through nbdev, as for the site; what it says if it fails, or ''."
    env = {**os.environ, 'PYTHONPATH': str(root)}
    done = subprocess.run([sys.executable, str(PROCESS)], cwd=root, capture_output=True, text=True, env=env)
    return done.stderr if done.returncode else ''

def processed_pages(root):
    "The notebooks that nbdev has made of those of nbs/."
    made = sorted((root/'_proc').rglob('*.ipynb'))
    return [p for p in made if (root/'nbs'/p.relative_to(root/'_proc')).is_file()]

def processed_faults(root):
    "What is wrong on processed pages."
    return [fault for page in processed_pages(root) for check in CHECKS for fault in check(root, page)]

def processing_faults(root):
    "Send every notebook through nbdev, as for the site, and look at what it made."
    said = process(root)
    return [failed(root, said)] if said else processed_faults(root)
