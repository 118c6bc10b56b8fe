"What users name may be HTML; no page runs it. (Passages, queries and ids: tests/evaluation/test_diagnosis.py.)"
import shutil

from bs4 import BeautifulSoup

from dacl_dr.core.options import RunStudy
from dacl_dr.studies.plan import study_plan
from dacl_dr.studies.study import run_study

YAML = '''question: 'Is <script>alert(2)</script> <b onclick="alert(3)">cheaper</b>?'
encoder: {vocab_size: 500, dim: 16}
training: {batch_size: 64, num_epochs: 1}
search: {m: 8, ef_construction: 40}
recipes: [A, B]
seeds: [0]
'''


def test_names_and_questions_of_a_study_are_shown_and_not_run(tiny_run, tmp_path):
    name = '<img src=x onerror=alert(1)>'
    folder = tmp_path/'data'/name
    folder.mkdir(parents=True)
    for f in (tiny_run[0]/'codedocs').glob('*.*'): shutil.copy(f, folder/f.name)
    (tmp_path/'mine.yaml').write_text(YAML)
    o = RunStudy(
        study=str(tmp_path/'mine.yaml'), dataset=name, data_dir=str(tmp_path/'data'), output_dir=str(tmp_path/'runs'))
    made, failed = run_study(study_plan(o), o, lambda text: None)
    assert not failed
    body = BeautifulSoup(next(made.rglob('*.html')).read_text(), 'html.parser').body
    assert name in body.get_text() and '<script>alert(2)</script>' in body.get_text() # shown as they were written
    assert not body.find_all('img', src='x')
    for tag in body.find_all(True): assert not any(a.startswith('on') for a in tag.attrs), tag.name
    assert not any('alert(2)' in (script.string or '')[:20] for script in body.find_all('script'))
