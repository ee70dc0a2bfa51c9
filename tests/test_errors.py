import pickle

import pytest

from csvae_hub import errors

KNOWN = ("Bangs", "Eyeglasses", "Smiling")


@pytest.mark.parametrize("name", ["Eyeglases", "eyeglasses", "EYEGLASSES", "Eye_glasses"])
def test_the_nearest_name_is_proposed_whatever_its_case(name):
    assert errors.did_you_mean(name, KNOWN) == " did you mean 'Eyeglasses'?"


@pytest.mark.parametrize("known", [KNOWN, ()])
def test_nothing_is_proposed_where_nothing_is_near(known):
    assert errors.did_you_mean("zebra", known) == ""


def test_unknown_attribute_names_the_near_one_and_all():
    error = errors.unknown_attribute("Eyeglases", KNOWN)
    assert isinstance(error, errors.UnknownAttributeError)
    assert str(error) == (
        "unknown attribute 'Eyeglases': did you mean 'Eyeglasses'? This model knows: Bangs, Eyeglasses, Smiling"
    )


def test_unknown_attribute_without_a_near_one():
    error = errors.unknown_attribute("zebra", iter(KNOWN), owner="This table")
    assert str(error) == "unknown attribute 'zebra'. This table knows: Bangs, Eyeglasses, Smiling"


def test_require_gives_the_module():
    assert errors.require("json.decoder", "plot").__name__ == "json.decoder"


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_require_names_the_package_and_the_install_line(module):
    with pytest.raises(errors.MissingExtraError) as caught:
        errors.require(module, "plot")
    assert str(caught.value) == "no_such_package is missing: pip install 'csvae-hub[plot]'"
    assert isinstance(caught.value, ImportError)


def test_require_names_the_package_that_another_one_lacks(tmp_path, monkeypatch):
    (tmp_path / "needs_another.py").write_text("import another_that_is_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.MissingExtraError, match=r"^another_that_is_absent is missing: .*csvae-hub\[train\]"):
        errors.require("needs_another", "train")


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (errors.ImageError, ValueError),
        (errors.FaceError, errors.ImageError),
        (errors.NoFaceError, errors.FaceError),
        (errors.UnknownAttributeError, ValueError),
        (errors.ConfigError, ValueError),
        (errors.DataError, ValueError),
        (errors.UnknownModelError, errors.WeightsError),
        (errors.MissingWeightsError, errors.WeightsError),
        (errors.CorruptWeightsError, errors.WeightsError),
        (errors.WeightsMismatchError, errors.WeightsError),
        (errors.WeightsVersionError, errors.WeightsError),
        (errors.CardError, ValueError),
        (errors.NonFiniteWeightsError, errors.CorruptWeightsError),
        (errors.UnsafeWeightsError, errors.WeightsError),
        (errors.HubError, errors.WeightsError),
        (errors.HubRepoNotFoundError, errors.HubError),
        (errors.HubRepoNotFoundError, errors.UnknownModelError),
        (errors.HubGatedRepoError, errors.HubError),
        (errors.HubRevisionNotFoundError, errors.HubError),
        (errors.HubOfflineError, errors.HubError),
        (errors.HubTokenError, errors.HubError),
        (errors.HubConnectionError, errors.HubError),
        (errors.WeightsError, OSError),
    ],
)
def test_errors_are_of_python_s_kinds_and_cross_processes(error, base):
    assert issubclass(error, base)
    assert str(pickle.loads(pickle.dumps(error("expected, got, remedy")))) == "expected, got, remedy"
