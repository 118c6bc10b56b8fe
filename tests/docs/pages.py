"Pages and their pieces, for all checks."
import difflib, json, re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r'^([ ]*)(```+|~~~+)[ ]*\{?\.?([\w=-]*).*?\n(.*?)^\1\2[ ]*$', re.M | re.S)


class Part(NamedTuple):
    "A piece of a page: a Markdown text, or the source of a code cell."
    page: Path
    cell: int # -1: the page is plain Markdown, and places are lines
    kind: str # markdown, output or code
    text: str

    def fault(self, root, at, what, remedy):
        "One line: where, what, what to do."
        place = f'cell {self.cell}' if self.cell >= 0 else f'line {self.text.count(chr(10), 0, at) + 1}'
        return f'{self.page.relative_to(root)}: {place}: {what}: {remedy}'


def text_of(source): return source if isinstance(source, str) else ''.join(source)

def cells_of(page): return json.loads(page.read_text(encoding='utf-8'))['cells']

def parts(page):
    "The pieces of a page; Markdown that a notebook's code has shown counts too."
    if page.suffix != '.ipynb': return [Part(page, -1, 'markdown', page.read_text(encoding='utf-8'))]
    found = []
    for i, c in enumerate(cells_of(page)):
        found.append(Part(page, i, c['cell_type'], text_of(c['source'])))
        shown = [o['data'] for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {})]
        found += [Part(page, i, 'output', text_of(data['text/markdown'])) for data in shown]
    return found

def site_pages(root):
    "What the site is made of."
    hidden = lambda p: any(x.startswith(('.', '_')) for x in p.relative_to(root/'nbs').parts)
    return sorted(p for kind in ('ipynb', 'qmd', 'md') for p in (root/'nbs').rglob(f'*.{kind}') if not hidden(p))

def all_pages(root):
    "The site's pages, and those of the repository."
    return [p for n in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md') if (p := root/n).is_file()] + site_pages(root)

def blank(pattern, text, flags=0): return re.sub(pattern, lambda m: re.sub(r'[^\n]', ' ', m[0]), text, flags=flags)

def prose(text):
    "A text whose code, formulas and comments are blanks, so that places stay what they were."
    text = blank(FENCE, text)
    for pattern in (r'<!--.*?-->', r'\$\$.*?\$\$', r'(`+)(?!`).*?(?<!`)\1(?!`)'): text = blank(pattern, text, re.S)
    return text

def suggest(word, known):
    "A guess at what was meant."
    if not known: return 'there are none'
    guess = difflib.get_close_matches(word, sorted(known), 1)
    return f"did you mean '{guess[0]}'?" if guess else 'known are ' + ', '.join(sorted(known)[:12])

def slugs(heading):
    "The identifiers that Pandoc and GitHub give a heading."
    plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading).replace('`', '').replace('*', '').lower().strip()
    github = re.sub(r'[^\w\- ]', '', plain).replace(' ', '-')
    pandoc = re.sub(r'^[^a-z一-鿿]+', '', re.sub(r'[^\w\-. ]', '', plain).replace(' ', '-'))
    return github, pandoc

def heading_anchors(page, text):
    "The identifiers of the headings in a Markdown text: those that are given, or those that are made."
    for m in re.finditer(r'^#{1,6}\s+(.*?)\s*(\{[^}]*\})?\s*$', text, re.M):
        github, pandoc = slugs(m[1])
        given = re.search(r'#([\w:.-]+)', m[2] or '')
        made = pandoc if page.parent.name and page.suffix == '.ipynb' else github
        yield given[1] if given else made

def anchors(page):
    "Every identifier a link into a page may name."
    return anchors_at(page, page.stat().st_mtime_ns, page.stat().st_size)

@lru_cache(None)
def anchors_at(page, *state):
    "Those of a state of a page's file."
    found = set()
    for p in parts(page):
        if p.kind == 'code':
            found |= {m[1] for m in re.finditer(r'^#\|\s*label:\s*(\S+)', p.text, re.M)}
            continue
        text = blank(FENCE, p.text)
        found |= {m[1] for m in re.finditer(r'\{#([\w:.-]+)[^}]*\}', text)}
        found |= {m[1] for m in re.finditer(r'\bid="([^"]+)"', p.text)}
        found |= set(heading_anchors(page, text))
    return found
