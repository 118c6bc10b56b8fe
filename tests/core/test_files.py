"What a kill at any moment may leave in a folder."
import subprocess, sys

CODE = '''
import sys
from dacl_dr.core.files import make_folder
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)
make_folder(sys.argv[1])
print(*opened, sep='\\n')
'''

def test_looking_whether_a_folder_can_be_written_to_names_no_file(tmp_path):
    done = subprocess.run([sys.executable, '-c', CODE, tmp_path/'new'], capture_output=True, text=True, check=True)
    assert set(done.stdout.split('\n')) - {''} == {str(tmp_path/'new')}
