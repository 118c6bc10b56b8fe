"Pages need nothing from elsewhere, say what their pictures show, and can be read in the light and in the dark."
import re, shutil
from pathlib import Path

import altair as alt, nbformat, pandas as pd, pytest

from dacl_dr.report.notebook import live_charts, site_outputs
from dacl_dr.report.page import Page, chart_libraries
from site_check import BROWSERS, CSS_FETCH, JS_FETCH, foreign, measured, page_faults, static_faults, width_faults

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

PLANTED = {
    'a script': '<script src="https://cdn.example.org/require.js"></script>',
    'a script without a scheme': '<script src="//cdn.example.org/x.js"></script>',
    'a style sheet': '<link rel="stylesheet" href="https://cdn.example.org/katex.css">',
    'a picture': '<img alt="x" src="https://cdn.example.org/x.png">',
    'pictures for several screens': '<img alt="x" srcset="a.png 1x, https://cdn.example.org/x.png 2x">',
    'fonts': '<style>@import url("https://cdn.example.org/css2?family=Lato");</style>',
    'an import': '<script type="module">import x from "https://cdn.example.org/x.js"</script>',
    'a script made by a script': '<script>s.src  = "https://cdn.example.org/mathjax.js";</script>',
    'the background of an element': '<p style="background: url(https://cdn.example.org/x.png)">x</p>',
}

@pytest.mark.parametrize('name', PLANTED)
def test_what_is_fetched_from_elsewhere_is_told(name):
    said = 'a.html: fetches from cdn.example.org: serve it from the site or leave it out'
    assert page_faults(f'<html><body>{PLANTED[name]}</body></html>', 'a.html') == [said]

def test_links_that_a_reader_follows_are_no_fault():
    text = (
        '<link rel="canonical" href="https://x.org/a"><a href="https://x.org">x</a><img alt="" '
        'src="a.png"><script>"https://x.org"</script>')
    assert page_faults(text, 'a.html') == []

def test_what_has_no_words_is_told():
    [picture, chart] = page_faults('<img src="a.png"><div class="chart" id="c1"></div>', 'a.html')
    assert picture == 'a.html: picture a.png has no words: give it an alt or an aria-label' and 'chart c1' in chart

def test_fonts_of_a_theme_are_told(tmp_path):
    (tmp_path/'theme.css').write_text('@import"https://fonts.example.org/css2"; body { color: red }')
    assert static_faults(tmp_path) == ['theme.css: fetches from fonts.example.org: choose a theme that does not']


def many_panels(n=4):
    table = pd.DataFrame({'visited nodes': [1, 2, 3], 'recall': [.1, .5, .9]})
    panel = alt.Chart(table).mark_line().encode(x='visited nodes:Q', y='recall:Q').properties(width=250, height=120)
    return alt.hconcat(*[panel] * n).properties(title='Recall by cost')

def program_page(path):
    "A page as the program writes it, with what could be too wide."
    long = pd.DataFrame({f'column {i}': ['a word ' * 3] for i in range(12)})
    return Page('A page').opening('A page', 'with a very_long_word_' * 9).table(long).chart(many_panels()).write(path)

def test_pages_of_the_program_fetch_nothing(tmp_path):
    text = program_page(tmp_path/'a.html').read_text()
    assert page_faults(text, 'a.html') == []
    assert 'aria-label="Recall by cost: recall against visited nodes"' in text
    assert foreign(CSS_FETCH.findall(chart_libraries()) + JS_FETCH.findall(chart_libraries())) == []

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT/'nbs').with_suffix('')))
def test_outputs_need_nothing_from_elsewhere(path):
    "As nbdev passes them on; HTML and widgets among them would make Quarto add require.js and jQuery."
    nb = nbformat.read(path, 4)
    for i, cell in enumerate(nb.cells):
        cell['idx_'] = i
        live_charts(cell)
    site_outputs(nb).begin()
    shown = [out.get('data', {}) for cell in nb.cells for out in cell.get('outputs', [])]
    assert not {kind for data in shown for kind in data} - {'text/plain', 'text/markdown'}
    for data in shown: assert page_faults(''.join(data.get('text/markdown', '')), path.name) == []


def colours_of(theme):
    return dict(re.findall(r'^\$(\w+): (#\w{6});', (ROOT/'nbs'/f'theme-{theme}.scss').read_text(), re.M))

def contrast(a, b):
    "WCAG 2: from 1 to 21."
    def luminance(colour):
        shares = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [s / 12.92 if s <= .04045 else ((s + .055) / 1.055)**2.4 for s in shares]
        return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2]
    dim, bright = sorted((luminance(a), luminance(b)))
    return (bright + .05) / (dim + .05)

@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_text_has_contrast(theme):
    c = colours_of(theme)
    grounds = [c[g] for g in ('paper', 'raised', 'side', 'marked')]
    assert min(contrast(c[ink], g) for ink in ('ink', 'link') for g in grounds) >= 4.5
    assert min(contrast(c['quiet'], g) for g in grounds[:3]) >= 4.5

def test_the_two_themes_differ_in_colours_alone():
    names = [re.sub(r'#\w{6}', '#', (ROOT/'nbs'/f'theme-{t}.scss').read_text()) for t in ('light', 'dark')]
    assert set(colours_of('light')) == set(colours_of('dark'))
    assert '#{$paper}' in names[0]
    assert '@import' not in ''.join(names)


BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

@pytest.mark.skipif(BROWSER is None, reason='no Chromium here')
def test_a_page_fits_a_phone(tmp_path):
    program_page(tmp_path/'a.html')
    (tmp_path/'b.html').write_text(
        '<meta name="viewport" content="width=device-width"><div class="sourceCode"><pre style="overflow:auto">'
        + 'x' * 900 + '</pre></div><p style="width:2000px">x</p>')
    rows = measured(tmp_path, BROWSER, ['a.html', 'b.html'], seconds=120)
    told = [*width_faults(rows)]
    assert not any(t.startswith('a.html') for t in told), told
    assert {r['page']: r['charts'] for r in rows} == {'a.html': 1, 'b.html': 0}
    assert any(t.startswith('b.html at 390 px: scrolls sideways by') for t in told)
    assert 'b.html at 1400 px: 1 of 1 blocks of code are cut' in told
