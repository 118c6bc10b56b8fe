"What users name may be HTML; a page shows it and runs nothing of it."
from bs4 import BeautifulSoup

IMAGE = '<img src=x onerror=alert(1)>'
SCRIPT = '<script>alert(2)<'+'/script>'
BOLD = '<b onclick="alert(3)">x'


def shows_only(page, *texts):
    "Texts stand on a page as they were written, and no element came of them."
    soup = BeautifulSoup(page.read_text(), 'html.parser')
    for text in texts: assert text in soup.get_text(), text
    assert not soup.find_all('img', src='x') and not soup.find_all('b', onclick=True)
    for tag in soup.find_all(True): assert not any(a.startswith('on') for a in tag.attrs), tag.name
    for script in soup.find_all('script'): assert not (script.string or '').lstrip().startswith('alert'), script
