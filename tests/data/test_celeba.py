from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from csvae_hub.data import load_celeba, load_data, load_table
from csvae_hub.errors import DataError, UnknownAttributeError

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
ATTRIBUTES = """4
Eyeglasses Male Smiling
000001.jpg -1  1  1
000002.jpg  1 -1 -1
000003.jpg -1 -1  1
000004.jpg  1  1  1
"""
PARTITION = "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n000004.jpg 0\n"


def write_celeba(folder: Path) -> None:
    (folder / "img_align_celeba").mkdir(parents=True)
    for i in range(1, 5):
        picture = Image.new("RGB", (178, 218), (255, 255, 255))
        picture.paste((40 * i, 0, 0), (15, 35, 163, 183))
        picture.save(folder / f"img_align_celeba/{i:06}.jpg", quality=95, subsampling=0)
    (folder / "list_attr_celeba.txt").write_text(ATTRIBUTES)
    (folder / "list_eval_partition.txt").write_text(PARTITION)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CSVAE_HUB_CACHE", str(tmp_path / "cache"))
    write_celeba(tmp_path / "root")
    return tmp_path / "root"


def test_labels_and_files_of_a_split(root):
    data = load_celeba(root, split="train")
    assert data.attributes == ("Eyeglasses", "Male", "Smiling")
    assert data.files == ["000001.jpg", "000004.jpg"]
    np.testing.assert_array_equal(data.labels, [[0, 1, 1], [1, 1, 1]])
    assert data.shape == (3, 64, 64)


def test_splits_together_are_all(root):
    files = [file for split in ("train", "valid", "test") for file in load_celeba(root, split=split).files]
    assert sorted(files) == load_celeba(root, split="all").files


def test_the_central_148_pixels_are_taken(root):
    images = load_celeba(root, split="all", image_size=148).images.astype(int)
    for i in range(4):
        inside = images[i, :, 8:-8, 8:-8]
        assert abs(inside - np.array([40 * (i + 1), 0, 0])[:, None, None]).max() <= 4
    assert images[:, 1].mean() < 16


def test_attributes_in_the_order_asked_for(root):
    assert load_celeba(root, ["Smiling", "Eyeglasses"], split="valid").labels.tolist() == [[0.0, 1.0]]
    with pytest.raises(UnknownAttributeError, match="unknown attribute 'Smilin': did you mean 'Smiling'?"):
        load_celeba(root, ["Smilin"])


def test_torchvisions_layout_and_load_data(root, tmp_path):
    root.rename(tmp_path / "celeba")
    for loaded in (
        load_celeba(tmp_path, split="test"),
        load_data(tmp_path, split="test"),
        load_data(str(tmp_path / "celeba"), split="test"),
    ):
        assert loaded.files == ["000003.jpg"]


def test_download_is_left_to_torchvision(tmp_path, monkeypatch):
    def fetch(root, split, download):
        assert download
        write_celeba(Path(root) / "celeba")

    monkeypatch.setattr(torchvision.datasets, "CelebA", fetch)
    assert len(load_celeba(tmp_path / "new", split="all", cache_dir=tmp_path / "cache", download=True)) == 4


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    def fail(root, split, download):
        raise RuntimeError("the daily quota is exceeded")

    monkeypatch.setattr(torchvision.datasets, "CelebA", fail)
    with pytest.raises(
        DataError, match=r"could not be downloaded .*daily quota is exceeded. Fetch img_align_celeba.zip"
    ):
        load_celeba(tmp_path, download=True)


def test_unknown_split(root):
    with pytest.raises(DataError, match="expected train, valid, test or all, got 'vaild': did you mean 'valid'[?]"):
        load_celeba(root, split="vaild")
    (root / "list_eval_partition.txt").write_text(PARTITION.replace(" 2", " 0"))
    with pytest.raises(DataError, match="has no split 'test'.*Splits here: train, valid"):
        load_celeba(root, split="test")


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("list_attr_celeba.txt", None, "expected CelebA's list_attr_celeba.txt.* got no list_attr_celeba.txt"),
        ("list_eval_partition.txt", None, "expected list_eval_partition.txt, got none"),
        ("list_attr_celeba.txt", "file,Smiling\n1.jpg,1\n", "expected the number of pictures, the names and a line"),
        ("list_attr_celeba.txt", ATTRIBUTES[:-20], "its first line says 4 pictures, got 3: fetch it again"),
        ("list_attr_celeba.txt", ATTRIBUTES[:-4], "line 6: expected a name and 3 values, got 2 values"),
        ("list_attr_celeba.txt", ATTRIBUTES.replace("000002", "000001"), "line 4: 000001.jpg is listed twice"),
        ("list_attr_celeba.txt", ATTRIBUTES.replace("-1  1  1", "-1  7  1"), "column 'Male': expected 0 or 1"),
        ("list_eval_partition.txt", "000001.jpg 0\n", "expected a line for each picture, got none for 000002.jpg"),
        ("list_eval_partition.txt", "000001.jpg 3\n", "line 1: expected a file name and 0, 1 or 2, got '000001.jpg 3'"),
    ],
)
def test_lists_that_cannot_be_used(root, file, text, error):
    if text is None:
        (root / file).unlink()
    else:
        (root / file).write_text(text)
    with pytest.raises(DataError, match=error):
        load_celeba(root)


def test_pictures_that_cannot_be_used(root):
    Image.new("RGB", (64, 64)).save(root / "img_align_celeba/000004.jpg")
    with pytest.raises(
        DataError, match=r"1 of 2 pictures .*000004.jpg: expected a picture of 178×218 pixels, got 64×64"
    ):
        load_celeba(root)
    (root / "img_align_celeba/000004.jpg").unlink()
    with pytest.raises(DataError, match="000004.jpg is listed but missing from"):
        load_celeba(root)
    (root / "img_align_celeba").rename(root / "other")
    with pytest.raises(
        DataError, match="expected img_align_celeba/ in it, got none: unpack img_align_celeba.zip there"
    ):
        load_celeba(root)


# -- Kaggle's copy ------------------------------------------------------------------------------------------------


def as_kaggle_lays_it_out(root: Path, nested: bool = True) -> None:
    """Lists as CSV with a header, and the pictures in a folder within a folder of the same name."""
    if nested:
        (root / "img_align_celeba").rename(root / "inner")
        (root / "img_align_celeba").mkdir()
        (root / "inner").rename(root / "img_align_celeba/img_align_celeba")
    _, names, *rows = ATTRIBUTES.splitlines()
    lines = [",".join(["image_id", *names.split()]), *(",".join(row.split()) for row in rows)]
    (root / "list_attr_celeba.csv").write_text("\n".join(lines) + "\n")
    (root / "list_eval_partition.csv").write_text("image_id,partition\n" + PARTITION.replace(" ", ","))
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        (root / name).unlink()


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("split", ["train", "valid", "test", "all"])
def test_kaggles_copy_is_the_same_data(root, nested, split):
    published = load_celeba(root, split=split)
    as_kaggle_lays_it_out(root, nested)
    kaggles = load_data(root, split=split)
    assert kaggles.fingerprint == published.fingerprint


def test_the_published_lists_count_where_both_are(root):
    (root / "list_attr_celeba.csv").write_text("nonsense")
    assert len(load_celeba(root, split="all")) == 4


@pytest.mark.parametrize(
    ("file", "old", "new", "error"),
    [
        ("list_eval_partition.csv", None, None, "expected list_eval_partition.csv, got none: copy it there"),
        (
            "list_attr_celeba.csv",
            "\n",
            " ",
            "list_attr_celeba.csv: expected the names and a line a picture, got another",
        ),
        ("list_attr_celeba.csv", "000002", "000001", "line 3: 000001.jpg is listed twice"),
        ("list_attr_celeba.csv", ",-1,-1,1\n", ",-1,1\n", "line 4: expected a name and 3 values, got 2 values"),
        ("list_attr_celeba.csv", "000001.jpg,-1,1,1", "000001.jpg,-1,7,1", "column 'Male': expected 0 or 1"),
        ("list_eval_partition.csv", "000002.jpg,1", "000002.jpg,4", "line 3: expected a file name and 0, 1 or 2, got"),
        ("list_eval_partition.csv", "000002.jpg,1\n", "", "expected a line for each picture, got none for 000002.jpg"),
    ],
)
def test_kaggles_lists_that_cannot_be_used(root, file, old, new, error):
    as_kaggle_lays_it_out(root)
    if old is None:
        (root / file).unlink()
    else:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new))
    with pytest.raises(DataError, match=error):
        load_celeba(root)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_the_published_layout_gives_the_prepared_faces(tmp_path):
    full = load_celeba(SHARED / "celeba178", split="all", cache_dir=tmp_path)
    assert len(full) == 300
    assert len(full.attributes) == 40
    assert len(load_celeba(SHARED / "celeba178", split="valid", cache_dir=tmp_path)) == 42
    prepared = load_table(SHARED / "celeba64", split="valid", cache_dir=tmp_path)
    common = sorted(set(full.files) & set(prepared.files))
    assert common
    a = full.subset([full.files.index(file) for file in common])
    b = prepared.select(full.attributes).subset([prepared.files.index(file) for file in common])
    np.testing.assert_array_equal(a.labels, b.labels)
    assert np.abs(a.images.astype(int) - b.images).mean() < 6
