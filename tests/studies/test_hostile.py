"Names and questions of a study that are HTML; other pages: their own tests call `shows_only` too."
import shutil

from dacl_dr.core.options import RunStudy
from dacl_dr.studies.plan import study_plan
from dacl_dr.studies.study import run_study
from hostile import IMAGE, SCRIPT, shows_only

YAML = '''question: 'Is <script>alert(2)</script> <b onclick="alert(3)">cheaper</b>?'
encoder: {vocab_size: 500, dim: 16}
training: {batch_size: 64, num_epochs: 1}
search: {m: 8, ef_construction: 40}
recipes: [A, B]
seeds: [0]
'''


def test_names_and_questions_of_a_study_are_shown_and_not_run(tiny_run, tmp_path):
    folder = tmp_path/'data'/IMAGE
    folder.mkdir(parents=True)
    for f in (tiny_run[0]/'codedocs').glob('*.*'): shutil.copy(f, folder/f.name)
    (tmp_path/'mine.yaml').write_text(YAML)
    o = RunStudy(
        study=str(tmp_path/'mine.yaml'), dataset=IMAGE, data_dir=str(tmp_path/'data'), output_dir=str(tmp_path/'runs'))
    made, failed = run_study(study_plan(o), o, lambda text: None)
    assert not failed
    shows_only(next(made.rglob('*.html')), IMAGE, SCRIPT)
