"""`ntire cluster`: scripts that parse, wherever they are written, and say how they are called."""

import subprocess

import pytest

from ntire.cluster import NAMES, text_of


@pytest.mark.parametrize("name", [name for name, file in NAMES.items() if file.endswith(".sbatch")])
def test_scripts_are_written_where_the_user_says_and_bash_can_read_them(ntire, tmp_path, name):
    file = tmp_path / "new" / "of Zoë's.sbatch"
    assert ntire("cluster", name, "-o", file).code == 0
    assert file.read_text() == ntire("cluster", name).out == text_of(name)
    assert subprocess.run(["bash", "-n", file], check=False).returncode == 0


def test_a_folder_is_no_file_to_write(ntire, tmp_path):
    refused = ntire("cluster", "slurm-array", "-o", tmp_path)
    assert (refused.code, "expected a file to write, found a folder" in " ".join(refused.err.split())) == (2, True)
    (tmp_path / "file").touch()
    refused = ntire("cluster", "slurm-array", "-o", tmp_path / "file" / "x")
    assert (refused.code, "expected a folder that can be written to" in " ".join(refused.err.split())) == (2, True)


@pytest.mark.parametrize("words", [[], ["run", "--team", "HH"]])
def test_an_array_without_the_number_of_its_parts_says_so(words):
    ran = subprocess.run(
        ["bash", "-c", text_of("slurm-array"), "array.sbatch", *words], capture_output=True, text=True, check=False
    )
    assert ran.returncode != 0
    assert "the number of parts" in ran.stderr
