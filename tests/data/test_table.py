from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvae_hub.data import load_data, load_table, table_splits
from csvae_hub.errors import DataError, UnknownAttributeError

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
TABLE = """file,split,Smiling,Eyeglasses
a.png,train,1,0
b.png,valid,0,1
c.png,train,0,
d.png,test,1,1
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CSVAE_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "faces"
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate("abcd"):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(folder / "images" / f"{name}.png")
    (folder / "attributes.csv").write_text(TABLE)
    return folder


def test_a_split_in_the_order_of_the_table(folder):
    data = load_table(folder, image_size=16)
    assert data.attributes == ("Smiling", "Eyeglasses")
    assert data.files == ["a.png", "c.png"]
    np.testing.assert_array_equal(data.labels, np.array([[1, 0], [0, np.nan]], dtype=np.float32))
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [0, 2])


def test_splits_are_disjoint_and_together_all(folder):
    splits = [load_table(folder, split=split, image_size=16).files for split in table_splits(folder)]
    assert (
        sorted(sum(splits, []))
        == load_table(folder, split="all", image_size=16).files
        == ["a.png", "b.png", "c.png", "d.png"]
    )


def test_attributes_in_the_order_asked_for(folder):
    data = load_table(folder, ["Eyeglasses", "Smiling"], split="all", image_size=16)
    expected = load_table(folder, split="all", image_size=16).select(["Eyeglasses", "Smiling"])
    assert data.fingerprint == expected.fingerprint


def test_load_data_knows_the_layout(folder):
    assert load_data(str(folder), split="test", image_size=16).files == ["d.png"]


def test_without_a_column_split_all_rows_are_train(folder):
    (folder / "attributes.csv").write_text("file,Smiling\na.png,1\nb.png,-1\n")
    assert len(load_table(folder, image_size=16)) == 2
    assert table_splits(folder) == ("train",)
    with pytest.raises(DataError, match="has no split 'valid'. Splits here: train; all takes all"):
        load_table(folder, split="valid", image_size=16)


def test_another_table(folder):
    (folder / "more.csv").write_bytes("\ufefffile,Hat\r\n\r\na.png,1\r\n".encode())
    assert load_table(folder, csv="more.csv", image_size=16).attributes == ("Hat",)


def test_words_and_decimals_are_labels(folder):
    cells = {
        "TRUE": 1,
        "true": 1,
        "True": 1,
        " 1.0": 1,
        "1,0": 1,
        "0.00": 0,
        "-0": 0,
        "FALSE": 0,
        "NA": None,
        "NaN": None,
    }
    for i, (cell, value) in enumerate(cells.items()):
        (folder / "attributes.csv").write_text(f'file,Smiling\na.png,"{cell}"\nb.png,1\n')
        data = load_table(folder, image_size=16)
        expected = np.array([[np.nan if value is None else value], [1]], np.float32)
        assert data.labels.tobytes() == expected.tobytes(), i


@pytest.mark.parametrize(
    "table",
    [
        ",file,split,Smiling,Eyeglasses\n0,a.png,train,1,0\n7,c.png,train,0,\n",
        '"","file","split","Smiling","Eyeglasses"\n"1","a.png","train",TRUE,FALSE\n"2","c.png","train",FALSE,NA\n',
        "Unnamed: 0,file,split,Smiling,Eyeglasses\n0,a.png,train,1,0\n1,c.png,train,0,\n",
        "file;split;Smiling;Eyeglasses\na.png;train;1,0;0,0\nc.png;train;0;\n",
        "file\tsplit\tSmiling\tEyeglasses\na.png\ttrain\t1\t0\nc.png\ttrain\t0\t\n",
        "\ufeff;file;split;Smiling;Eyeglasses;\r\n0;a.png;train;1;0;\r\n1;c.png;train;0;;\r\n;;;;;\r\n",
    ],
    ids=["pandas", "R", "pandas twice", "semicolons", "tabs", "a spreadsheet"],
)
def test_tables_as_other_programs_write_them(folder, table):
    (folder / "attributes.csv").write_text(table, encoding="utf-8")
    data = load_table(folder, image_size=16)
    assert (data.attributes, data.files) == (("Smiling", "Eyeglasses"), ["a.png", "c.png"])
    np.testing.assert_array_equal(data.labels, [[1, 0], [0, np.nan]])


def test_a_bad_cell_in_a_column_that_is_not_asked_for(folder):
    (folder / "attributes.csv").write_text("file,name,Smiling\na.png,Ann,1\n")
    assert load_table(folder, ["Smiling"], image_size=16).labels.tolist() == [[1.0]]
    with pytest.raises(DataError, match="column 'name': expected 0 or 1, -1 or 1, or nothing .* got 'Ann'"):
        load_table(folder, image_size=16)


def test_unknown_attribute_and_split_get_near_ones(folder):
    with pytest.raises(UnknownAttributeError, match="unknown attribute 'smiling': did you mean 'Smiling'?"):
        load_table(folder, ["smiling"])
    with pytest.raises(
        DataError, match="has no split 'trian': did you mean 'train'[?] Splits here: train, valid, test"
    ):
        load_table(folder, split="trian")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("", "expected column names and at least one row, got 0 lines"),
        ("file,Smiling\n", "expected column names and at least one row, got 1 lines"),
        ("name,Smiling\na.png,1\n", "expected a column 'file', names under images/, got name, Smiling"),
        ("file,Smiling,Smiling\na.png,1,1\n", "expected a name for each column, each once"),
        ("file,split\na.png,train\n", "expected at least one attribute beside file and split, got none"),
        ("file,Smiling,\na.png,1,0\n", "expected a name for each column, each once, got file, Smiling, $"),
        ("file|Smiling\na.png|1\n", "expected a column 'file', names under images/, got file|Smiling"),
        ("file,Smiling\na.png,2\n", "column 'Smiling': expected 0 or 1, .* got '2'"),
        ("file,Smiling\na.png,1\nb.png\n", "line 3: expected 2 cells, got 1"),
        ("file,Smiling\n,1\n", "line 2: expected a file name, got an empty cell"),
        ("file,Smiling\na.png,1\n\na.png,0\n", "line 4: 'a.png' is listed in line 2 already"),
        ("file,Smiling\na.png,1\nz.png,0\n", "z.png is listed but missing from .*images"),
        ('file,Smiling\n"a.png,1\n', "expected comma-separated text in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used(folder, table, text):
    (folder / "attributes.csv").write_text(table)
    with pytest.raises(DataError, match=text):
        load_table(folder, image_size=16)


def test_a_table_that_is_no_text(folder):
    (folder / "attributes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="expected comma-separated text in UTF-8, got"):
        load_table(folder)


def test_a_folder_without_the_table(folder, tmp_path):
    (folder / "attributes.csv").unlink()
    with pytest.raises(DataError, match="expected images/ and attributes.csv .* got no attributes.csv in it"):
        load_table(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="got an empty folder"):
        load_table(tmp_path / "empty")
    with pytest.raises(DataError, match="got no folder"):
        load_table(tmp_path / "nowhere")


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_faces(tmp_path):
    names = ["Bangs", "Eyeglasses", "Smiling"]
    data = load_table(SHARED / "celeba64", names, split="valid", cache_dir=tmp_path)
    assert data.shape == (3, 64, 64)
    assert len(data) == 1341
    assert table_splits(SHARED / "celeba64") == ("train", "valid", "test")
    assert 0.4 < data.labels[:, 2].mean() < 0.6
    x, _ = data.batch([0])
    with Image.open(SHARED / "celeba64/images" / data.files[0]) as picture:
        np.testing.assert_array_equal((x[0] * 255).round().numpy().transpose(1, 2, 0), np.asarray(picture))
