import pytest

from ntire.method.source import closure, fingerprint, teams_folder


def write(folder, files):
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def named(files, folder):
    return {str(file.relative_to(folder)) for file in files}


def test_a_method_of_the_release_follows_from_the_parts_that_it_imports_at_any_remove():
    found = named(closure(teams_folder() / "face" / "cx.py"), teams_folder())
    assert {"face/cx.py", "parts/diffbir.py", "parts/stable_diffusion.py"} <= found
    assert "parts/supir.py" not in found
    assert {name.partition("/")[0] for name in found} <= {"face", "parts"}


@pytest.mark.parametrize(
    ("line", "followed"),
    [
        ("import nets", True),
        ("from nets import thing", True),
        ("import deep.below", True),
        ("from deep import below", True),
        ("def later():\n    from deep.below import thing", True),
        ("import numpy, torch", False),
        ("from ntire.method import Method", False),
        ("import not_there", False),
    ],
)
def test_a_folder_follows_from_what_lies_in_it_and_is_imported(tmp_path, line, followed):
    write(tmp_path, {"method": line, "nets": "import more", "more": "", "unused": ""})
    write(tmp_path, {"deep/__init__": "", "deep/below": "from . import beside", "deep/beside": ""})
    found = named(closure(tmp_path / "method.py"), tmp_path)
    assert "unused.py" not in found
    expected = {"nets.py", "more.py"} if "nets" in line else {"deep/__init__.py", "deep/below.py", "deep/beside.py"}
    assert found == {"method.py"} | (expected if followed else set())


def test_an_installed_method_follows_from_its_own_package_and_parts_of_ours(tmp_path):
    nets = "import other\nfrom ntire.teams.parts.unet import Unet\nfrom .parts import a\n"
    write(
        tmp_path, {"mine/__init__": "", "mine/method": "from mine.nets import Net", "mine/nets": nets, "mine/parts": ""}
    )
    write(tmp_path, {"other/__init__": ""})
    found = closure(tmp_path / "mine" / "method.py")
    own = named([file for file in found if file.is_relative_to(tmp_path)], tmp_path)
    assert own == {"mine/__init__.py", "mine/method.py", "mine/nets.py", "mine/parts.py"}
    assert teams_folder() / "parts" / "unet.py" in found
    before = fingerprint(found)
    (tmp_path / "mine" / "nets.py").write_text("")
    assert fingerprint(found) != before
