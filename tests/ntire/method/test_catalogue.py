import pytest

from ntire import UserError
from ntire.method import Method, catalogue


def test_names_come_from_the_folders_as_the_report_spells_them():
    assert catalogue.module_name("TongJi-IPOE") == "tongji_ipoe"
    assert {"raw", "srgb"} <= set(catalogue.folders())
    assert catalogue.find("MiAlgo", "raw").variant == "phase3"
    assert catalogue.find("mialgo", "srgb").track == "srgb"
    assert catalogue.find("MiAlgo", "raw", "phase3") is catalogue.find("MiAlgo", "raw")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("MiAglo", "raw"), "unknown team on track raw: 'MiAglo'. Did you mean MiAlgo"),
        (("zzz", "raw"), "There are: .*Copy.*MiAlgo"),
        (("MiAlgo", "rwa"), "unknown track: 'rwa'. Did you mean raw"),
        (("MiAlgo", "raw", "phase9"), "unknown variant of MiAlgo: 'phase9'. Did you mean phase3"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(names, message):
    with pytest.raises(UserError, match=message):
        catalogue.find(*names)


def test_a_team_of_which_nothing_is_public_is_known_and_says_so(ntire):
    assert "Fustar-fsr" in [one.team for one in catalogue.unpublished("face")]
    assert catalogue.unpublished("raw") == []
    ran = ntire("run", "--team", "fustar-fsr", "--track", "face", "x.png")
    assert ran.code == 2
    assert "Fustar-fsr on track face cannot be run: neither a program" in ran.err.replace("\n", " ")


def test_a_folder_with_a_method_is_a_method(plugin):
    method = catalogue.load(plugin())
    assert issubclass(method, Method)
    assert method.team == "Plus"


def test_a_folder_may_import_its_own_modules(plugin, tmp_path):
    folder = plugin("import own_network_of_plus; lq = own_network_of_plus.half(lq)")
    (folder / "own_network_of_plus.py").write_text("def half(x):\n    return x / 2\n")
    import torch

    assert torch.allclose(catalogue.load(folder)()(torch.ones(1, 3, 2, 2)), torch.tensor(0.55))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "expected a folder with a method.py"),
        ("import nothing_of_this_name", "does not import: ModuleNotFoundError"),
        ("x = (", "does not import: SyntaxError"),
        ("x = 1", "expected one Method class, found none"),
        (
            "from ntire.method import Method\nclass A(Method):\n    team = 'A'\n",
            "class A: it does not declare track",
        ),
    ],
)
def test_a_folder_that_is_no_method_says_why(tmp_path, source, message):
    folder = tmp_path / "bad"
    folder.mkdir()
    if source is not None:
        (folder / "method.py").write_text(source)
    with pytest.raises(UserError, match=message):
        catalogue.load(folder)


def test_two_methods_in_one_folder_are_refused(plugin):
    folder = plugin()
    source = (folder / "method.py").read_text()
    (folder / "method.py").write_text(source + source.replace("class Plus", "class Minus"))
    with pytest.raises(UserError, match="expected one Method class, found Plus, Minus"):
        catalogue.load(folder)


def test_installed_packages_offer_methods_by_entry_point(monkeypatch, plugin):
    method = catalogue.load(plugin())

    class Entry:
        value = "plus:Plus"

        def load(self):
            return method

    monkeypatch.setattr(catalogue, "entry_points", lambda group: [Entry()] if group == "ntire.methods" else [])
    assert catalogue.find("Plus", "srgb") is method
    assert method in catalogue.methods("srgb")
    assert method not in catalogue.methods("raw")
