"""Is the built site whole in itself, and does it fit its windows?

    python tests/site_check.py SITE [--browser PROGRAM | --no-browser]

Nothing is fetched from elsewhere, and every picture and chart has words. With a Chromium among the programs each page
is then laid out at two widths: nothing scrolls sideways, no code is cut. One line a fault, exit code 1 if there are
any.
"""
import argparse, functools, http.server, json, re, shutil, subprocess, sys, tempfile, threading
from html.parser import HTMLParser
from pathlib import Path

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
FETCHED = {
    'script': ['src'], 'img': ['src', 'srcset'], 'iframe': ['src'], 'source': ['src', 'srcset'], 'video': ['src'],
    'audio': ['src'], 'embed': ['src'], 'object': ['data'], 'link': ['href'], 'image': ['href', 'xlink:href'],
}
NOT_FETCHED = {'canonical', 'alternate', 'next', 'prev', 'author', 'license', 'me'} # of links
CSS_FETCH = re.compile(r'''(?:@import\s*|url\(\s*)["']?((?:https?:)?//[^"')\s]+)''')
JS_FETCH = re.compile(r'''(?:\bimport\s*\(?|\bfrom|\.src\s*=|\.href\s*=|\bfetch\()\s*["'`]((?:https?:)?//[^"'`\s]+)''')


class Reader(HTMLParser):
    "What a page fetches, and what has no words."
    def __init__(self, text):
        super().__init__()
        self.fetched, self.wordless, self.within = [], [], ''
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.within = tag if tag in ('script', 'style') else self.within
        known = tag == 'link' and set((a.get('rel') or '').split()) <= NOT_FETCHED
        for key in [] if known else FETCHED.get(tag, []):
            for address in (a.get(key) or '').split(',') if key == 'srcset' else [a.get(key) or '']:
                self.fetched.append(address.strip())
        self.fetched += CSS_FETCH.findall(a.get('style') or '')
        if tag == 'img' and 'alt' not in a: self.wordless.append(f"picture {(a.get('src') or '')[:60]}")
        if 'chart' in (a.get('class') or '').split() and not a.get('aria-label'):
            self.wordless.append(f"chart {a.get('id', '')}")

    def handle_endtag(self, tag):
        if tag == self.within: self.within = ''

    def handle_data(self, data):
        if self.within == 'style': self.fetched += CSS_FETCH.findall(data)
        if self.within == 'script': self.fetched += JS_FETCH.findall(data)


def foreign(addresses):
    "Hosts other than the site's own."
    return sorted({re.match(r'(?:https?:)?//([^/\s]+)', a)[1] for a in addresses if re.match(r'(?:https?:)?//', a)})

def page_faults(text, name):
    "What a page fetches from elsewhere, and what it shows without words."
    read = Reader(text)
    return [
        *(f'{name}: fetches from {host}: serve it from the site or leave it out' for host in foreign(read.fetched)),
        *(f'{name}: {thing} has no words: give it an alt or an aria-label' for thing in read.wordless),
    ]

def static_faults(site):
    "Faults that can be seen without a browser."
    found = [
        f for p in sorted(site.rglob('*.html')) for f in page_faults(p.read_text(encoding='utf-8'), p.relative_to(site))
    ]
    for p in sorted(site.rglob('*.css')):
        hosts = foreign(CSS_FETCH.findall(p.read_text(encoding='utf-8')))
        found += [f'{p.relative_to(site)}: fetches from {h}: choose a theme that does not' for h in hosts]
    return found


MEASURE = '''<!doctype html><meta charset="utf-8"><body><script>
const pages = PAGES;
const wide = e => e.scrollWidth > e.clientWidth + 1;
const cut = (d, where) => [...d.querySelectorAll(where)].filter(e => e.clientWidth && wide(e));
const wait = ms => new Promise(r => setTimeout(r, ms));
async function measure(page, width) {
  const frame = document.createElement('iframe');
  frame.style = `width:${width}px;height:900px;border:0`;
  const loaded = new Promise(r => frame.onload = r);
  frame.src = page;
  document.body.append(frame);
  await loaded;
  const d = frame.contentDocument;
  for (let n = 0; n < 40 && d.querySelector('.chart[id]:not(.vega-embed)'); n++) await wait(100);
  await wait(200);
  for (let n = 0; n < 150 && cut(d, '.chart').length; n++) await wait(100); // a chart is drawn anew until it fits
  d.querySelectorAll('details').forEach(e => e.open = true);
  const root = d.documentElement, over = root.scrollWidth - root.clientWidth;
  const inBox = e => e.closest('.scroll, .chart, pre, table, math, nav, .sidebar');
  const beyond = e => !inBox(e) && e.getBoundingClientRect().right > root.clientWidth + 1;
  const culprits = [...d.querySelectorAll('main *, header *')].filter(beyond);
  const said = {
    page, width, over, by: culprits.slice(0, 3).map(e => e.tagName.toLowerCase() + '.' + e.className),
    code: d.querySelectorAll('div.sourceCode').length,
    cutCode: new Set(cut(d, 'div.sourceCode, div.sourceCode pre').map(e => e.closest('div.sourceCode'))).size,
    out: d.querySelectorAll('.cell-output pre').length, cutOut: cut(d, '.cell-output pre').length,
    charts: d.querySelectorAll('.chart').length, undrawn: d.querySelectorAll('.chart[id]:not(.vega-embed)').length,
    wideCharts: cut(d, '.chart').length,
  };
  frame.remove();
  await fetch('/measured', {method: 'POST', body: JSON.stringify(said)});
}
(async () => {
  for (const page of pages) for (const width of WIDTHS) await measure(page, width);
  await fetch('/measured', {method: 'POST', body: 'null'});
})();
</script>'''

class Server(http.server.SimpleHTTPRequestHandler):
    "The site, the page that measures it, and the ear that takes what it says."
    def log_message(self, *args): pass

    def do_GET(self):
        if self.path != '/measure-the-site.html': return super().do_GET()
        self.send_response(200)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.end_headers()
        self.wfile.write(self.server.measure.encode())

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        if said: self.server.found.append(said)
        else: self.server.done.set()
        self.send_response(204)
        self.end_headers()

def measured(site, browser, pages, widths=(1400, 390), seconds=1800):
    "Each page's widths, as the browser lays it out; in the order of pages and widths."
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Server, directory=str(site)))
    server.done, server.found = threading.Event(), []
    server.measure = MEASURE.replace('PAGES', json.dumps(pages)).replace('WIDTHS', json.dumps(widths))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as profile:
        address = f'http://127.0.0.1:{server.server_port}/measure-the-site.html'
        command = [
            browser, '--headless=new', '--no-sandbox', '--disable-gpu', f'--user-data-dir={profile}',
            '--window-size=1500,1000', '--remote-debugging-port=0', address]
        shown = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try: whole = server.done.wait(seconds)
        finally:
            shown.terminate()
            shown.wait()
            server.shutdown()
    if not whole:
        raise SystemExit(
            f'{browser} measured {len(server.found)} of {len(pages) * len(widths)} layouts within {seconds} seconds')
    return server.found

def width_faults(rows):
    "What does not fit."
    for r in rows:
        at = f"{r['page']} at {r['width']} px"
        if r['over'] > 1:
            yield f"{at}: scrolls sideways by {r['over']} px{': ' + ', '.join(r['by']) if r['by'] else ''}"
        if r['cutCode']: yield f"{at}: {r['cutCode']} of {r['code']} blocks of code are cut"
        if r['cutOut']: yield f"{at}: {r['cutOut']} of {r['out']} outputs are cut"
        if r['undrawn']: yield f"{at}: {r['undrawn']} of {r['charts']} charts are not drawn"
        if r['wideCharts']: yield f"{at}: {r['wideCharts']} of {r['charts']} charts are wider than the page"

def main(argv=None):
    "Print the faults; 1 if there are any."
    p = argparse.ArgumentParser(description='Check the built site.')
    p.add_argument('site', type=Path)
    p.add_argument('--browser', help='a Chromium; the first that is found unless given')
    p.add_argument('--no-browser', action='store_true')
    p.add_argument('--only', default='', help='measure pages whose names hold this')
    args = p.parse_args(argv)
    pages = sorted(
        str(f.relative_to(args.site)) for f in args.site.rglob('*.html')
        if 'site_libs' not in f.parts and args.only in str(f))
    if not pages: raise SystemExit(f'{args.site}: no pages; build the site with make docs')
    faults = static_faults(args.site)
    browser = None if args.no_browser else args.browser or next(filter(None, map(shutil.which, BROWSERS)), None)
    said = 'not measured, no Chromium here'
    if browser:
        rows = measured(args.site, browser, pages)
        faults += width_faults(rows)
        total = lambda key: sum(r[key] for r in rows if r['width'] == 1400)
        narrow = sum(r['over'] > 1 for r in rows if r['width'] == 390)
        said = (
            f"{total('cutCode')} of {total('code')} blocks of code and {total('cutOut')} of {total('out')} outputs cut "
            f"at 1,400 px; {narrow} pages scroll sideways at 390 px")
    print('\n'.join(faults))
    print(
        f"{len(pages)} pages: {len({f.split(':')[0] for f in faults if ': fetches from ' in f})} files fetch from "
        f"elsewhere; {said}")
    return 1 if faults else 0


if __name__ == '__main__': sys.exit(main())
